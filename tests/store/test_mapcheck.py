"""The check of LMDB's pages: each thing that LMDB would stumble over is found, and nothing that LMDB itself leaves."""

from __future__ import annotations

import random
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import lmdb
import pytest

from rowfs.base.errors import PoolError
from rowfs.base.format import TABLES
from rowfs.persist.blockmap import MapDamagedError
from rowfs.persist.mapcheck import CommitGoneError, find_damage
from tests.store.helpers import Home

PAGE = 4096
BRANCH, LEAF, LONG = 1, 2, 4
TABLE = ("table",)
KEYS = 400

File = bytearray


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """LMDB's file with a table of two levels and long values, and a free list."""
    path = tmp_path_factory.mktemp("map")
    with lmdb.open(str(path), map_size=1 << 26, max_dbs=4) as env:
        table = env.open_db(b"table")
        for turn in range(6):
            with env.begin(write=True, db=table) as txn:
                for number in range(turn, KEYS, 1 + turn):
                    txn.put(_key(number), bytes(3000 if number % 50 == 0 else 40 + turn))
    content = (path / "data.mdb").read_bytes()
    assert {kind for kind, _ in _pages(content)} >= {BRANCH, LEAF, LONG}
    return content


def _key(number: int) -> bytes:
    return struct.pack(">III", 1, number, 2)


def _pages(content: bytes) -> list[tuple[int, int]]:
    """Kind and position of the pages that are in use."""
    size = len(content) // PAGE
    free = set()
    newest = max((_meta(content, slot) for slot in (0, 1)), key=lambda meta: meta[1])
    for at in _nodes(content, newest[0] * PAGE):
        (count,) = struct.unpack_from("<Q", content, at + 16)
        free |= set(struct.unpack_from(f"<{count}Q", content, at + 24))
    used = [number for number in range(2, size) if number not in free]
    return [(struct.unpack_from("<H", content, number * PAGE + 10)[0], number * PAGE) for number in used]


def _meta(content: bytes, slot: int) -> tuple[int, int]:
    """The root page of the free list, and the commit."""
    (root,) = struct.unpack_from("<Q", content, slot * PAGE + 16 + 24 + 40)
    (commit,) = struct.unpack_from("<Q", content, slot * PAGE + 16 + 128)
    return root, commit


def _newest(content: bytes) -> int:
    return max((0, 1), key=lambda slot: _meta(content, slot)[1]) * PAGE


def _free_root(content: bytes) -> int:
    return _meta(content, _newest(content) // PAGE)[0] * PAGE


def _nodes(content: bytes, page: int) -> list[int]:
    (lower,) = struct.unpack_from("<H", content, page + 12)
    return [page + offset for offset in struct.unpack_from(f"<{(lower - 16) // 2}H", content, page + 16)]


def _first(content: bytes, kind: int) -> int:
    """A page of the table's: of its leaves not the first, which the table of tables may be."""
    found = [at for held, at in _pages(content) if held == kind]
    if kind != LEAF:
        return found[0]
    return next(at for at in found if len(_nodes(content, at)) > 10 and at != _free_root(content))


def _set(kind: str, at: int, *values: int) -> Callable[[File], None]:
    return lambda content: struct.pack_into(f"<{kind}", content, at, *values)


def _in_page(kind: int, at: int, form: str, *values: int) -> Callable[[File], None]:
    return lambda content: struct.pack_into(f"<{form}", content, _first(content, kind) + at, *values)


def _in_meta(at: int, form: str, *values: int) -> Callable[[File], None]:
    return lambda content: struct.pack_into(f"<{form}", content, _newest(content) + 16 + at, *values)


def _in_node(kind: int, node: int, at: int, form: str, *values: int) -> Callable[[File], None]:
    def damage(content: File) -> None:
        struct.pack_into(f"<{form}", content, _nodes(content, _first(content, kind))[node] + at, *values)

    return damage


def _in_free_list(at: int, form: str, *values: int) -> Callable[[File], None]:
    def damage(content: File) -> None:
        node = _nodes(content, _free_root(content))[0]
        struct.pack_into(f"<{form}", content, node + at, *values)

    return damage


def _copied_leaf(content: File) -> None:
    first, second = [at for kind, at in _pages(content) if kind == LEAF and len(_nodes(content, at)) > 10][:2]
    content[first + 8 : first + PAGE] = content[second + 8 : second + PAGE]


def _child_twice(content: File) -> None:
    first, second = _nodes(content, _first(content, BRANCH))[:2]
    content[first : first + 6] = content[second : second + 6]


def _swapped_nodes(content: File) -> None:
    page = _first(content, LEAF) + 16
    content[page : page + 2], content[page + 2 : page + 4] = content[page + 2 : page + 4], content[page : page + 2]


def _node_twice(content: File) -> None:
    page = _first(content, LEAF) + 16
    content[page : page + 2] = content[page + 2 : page + 4]


def _long_node(content: File) -> int:
    for kind, at in _pages(content):
        for node in _nodes(content, at) if kind == LEAF else ():
            if content[node + 4] == 1:
                return node
    raise AssertionError("there is no long value")


def _long_elsewhere(page: int) -> Callable[[File], None]:
    return lambda content: struct.pack_into("<Q", content, _long_node(content) + 8 + 12, page)


def _wrong_meta(content: File) -> None:
    newest = _newest(content)
    struct.pack_into("<Q", content, newest + 16 + 128, 1 << 40 | (newest == 0))


def _free_in_use(content: File) -> None:
    struct.pack_into("<QQ", content, _nodes(content, _free_root(content))[0] + 16, 1, _first(content, LEAF) // PAGE)


DAMAGE: dict[str, tuple[Callable[[File], None], str]] = {
    "no magic": (_set("I", 16, 1), "meta page 0 is none"),
    "another format": (_set("I", PAGE + 20, 3), "data format 3, not 1"),
    "strange page size": (_set("I", 16 + 24, 4097), "pages have 4097 bytes"),
    "metas that contradict": (_set("I", PAGE + 16 + 24, 8192), "contradict"),
    "a commit in the wrong meta page": (_wrong_meta, "cannot be of commit"),
    "a root past the end": (_in_meta(24 + 48 + 40, "Q", 1 << 20), "is not there"),
    "a root without a depth": (_in_meta(24 + 48 + 6, "H", 0), "0 levels deep"),
    "a root that is too deep": (_in_meta(24 + 48 + 6, "H", 2), "is not of kind"),
    "a root with flags": (_in_meta(24 + 48 + 4, "H", 4), "has flags"),
    "a root that counts wrongly": (_in_meta(24 + 48 + 32, "Q", 7), "does not count"),
    "fewer pages than are used": (_in_meta(120, "Q", 9), "is not there"),
    "another page's number": (_in_page(LEAF, 0, "Q", 3), "is another page"),
    "a leaf that says branch": (_in_page(LEAF, 10, "H", BRANCH), "is not of kind"),
    "a dirty page": (_in_page(LEAF, 10, "H", LEAF | 16), "is not of kind"),
    "an odd lower bound": (_in_page(LEAF, 12, "H", 33), "impossible bounds"),
    "a lower bound in the header": (_in_page(LEAF, 12, "H", 14), "impossible bounds"),
    "an upper bound past the end": (_in_page(LEAF, 14, "H", 4098), "impossible bounds"),
    "an upper bound in the gap": (_in_page(LEAF, 14, "H", 200), "room between"),
    "an empty leaf": (_in_page(LEAF, 12, "H", 16), "impossible bounds"),
    "a branch with one child": (_in_page(BRANCH, 12, "H", 18), "impossible bounds"),
    "a pointer into the header": (_in_page(LEAF, 16, "H", 8), "out of its bounds"),
    "a pointer past the end": (_in_page(LEAF, 16, "H", 4094), "out of its bounds"),
    "an odd pointer": (_in_page(LEAF, 16, "H", 4001), "out of its bounds"),
    "a child past the end": (_in_node(BRANCH, 1, 0, "H", 60000), "is not there"),
    "a child that is a meta page": (_in_node(BRANCH, 1, 0, "H", 1), "is not there"),
    "a child twice": (_child_twice, "in use twice"),
    "a value past its page": (_in_node(LEAF, 3, 0, "HH", 0, 1), "impossible length"),
    "a value a bit longer": (_in_node(LEAF, 3, 0, "H", 100), "overlap or leave gaps"),
    "no key": (_in_node(LEAF, 3, 6, "H", 0), "impossible length"),
    "an endless key": (_in_node(LEAF, 3, 6, "H", 600), "impossible length"),
    "flags of a node": (_in_node(LEAF, 3, 4, "H", 4), "no known kind"),
    "a key out of order": (_in_node(LEAF, 3, 8, "I", 0xFFFFFFFF), "out of order"),
    "a key of another leaf": (_in_node(LEAF, -1, 8, "I", 0xFFFFFFFF), "another page"),
    "nodes that changed places": (_swapped_nodes, "out of order"),
    "a node twice": (_node_twice, "overlap or leave gaps"),
    "a leaf over another": (_copied_leaf, ""),
    "a long value past the end": (_long_elsewhere(1 << 30), "not there"),
    "a long value far past the end": (_long_elsewhere((1 << 64) - 1), "not there"),
    "a long value in a meta page": (_long_elsewhere(1), "not there"),
    "a long value's page of another kind": (_in_page(LONG, 10, "H", LEAF), "is not of kind"),
    "a long value's page of another number": (_in_page(LONG, 0, "Q", 3), "is another page"),
    "a long value with more pages": (_in_page(LONG, 12, "I", 1 << 31), "counts other pages"),
    "a long value without pages": (_in_page(LONG, 12, "I", 0), "counts other pages"),
    "a free list that is longer": (_in_free_list(16, "Q", 1 << 20), "does not have the length"),
    "a free page past the end": (_in_free_list(24, "Q", 1 << 62), "is not there"),
    "free pages out of order": (_in_free_list(24, "Q", 2), "out of order"),
    "a free page that is in use": (_free_in_use, "in use and free"),
    "a commit to come": (_in_free_list(8, "Q", 1 << 40), ""),
    "a cut off file": (lambda content: content.__delitem__(slice(len(content) // 2, None)), ""),
    "nothing but metas": (lambda content: content.__delitem__(slice(2 * PAGE, None)), ""),
    "half a meta page": (lambda content: content.__delitem__(slice(PAGE, None)), "cut off"),
    "an empty file": (lambda content: content.clear(), "cut off"),
}


def _damage_in(content: bytes, tmp_path: Path, pages_max: int | None = None) -> list[str]:
    path = tmp_path / "data.mdb"
    path.write_bytes(content)
    return find_damage(str(path), TABLE) if pages_max is None else find_damage(str(path), TABLE, pages_max=pages_max)


def test_what_is_intact_is_not_complained_about(intact: bytes, tmp_path: Path) -> None:
    assert _damage_in(intact, tmp_path) == []


@pytest.mark.parametrize("what", DAMAGE)
def test_what_lmdb_would_stumble_over_is_found(intact: bytes, tmp_path: Path, what: str) -> None:
    damage, part = DAMAGE[what]
    content = bytearray(intact)
    damage(content)
    assert content != intact
    found = _damage_in(content, tmp_path)
    assert found and any(part in text for text in found), found


@pytest.mark.parametrize("seed", range(3))
def test_nothing_that_lmdb_writes_is_found(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    held: list[bytes] = []
    with lmdb.open(str(tmp_path), map_size=1 << 28, max_dbs=4, sync=False) as env:
        table, other = env.open_db(b"table"), env.open_db(b"other" * 8)
        for turn in range(40):
            growing = rng.random() < 0.5
            with env.begin(write=True, db=table) as txn:
                for _ in range(rng.choice((1, 10, 300, 2000))):
                    if growing or not held:
                        held.append(_key(rng.randrange(100_000)))
                        txn.put(held[-1], bytes(rng.choice((0, 11, 60, 500, 2018, 3141, 9000))))
                    else:
                        txn.delete(held.pop(rng.randrange(len(held))))
                txn.put(rng.randbytes(rng.choice((1, 16, 40))), b"", db=other)
                if turn % 10 == 9:
                    for key in held:
                        txn.delete(key)
                    held.clear()
            assert find_damage(str(tmp_path / "data.mdb"), TABLE) == []


def test_a_file_that_ends_before_free_pages_is_whole(tmp_path: Path) -> None:
    with lmdb.open(str(tmp_path), map_size=1 << 26, max_dbs=4) as env:
        table = env.open_db(b"table")
        for turn in range(4):  # so that there is a free list
            with env.begin(write=True, db=table) as txn:
                txn.put(_key(turn), b"")
        with env.begin(write=True, db=table) as txn:
            for number in range(10, KEYS):
                txn.put(_key(number), bytes(3000))
            for number in range(10, KEYS):
                txn.delete(_key(number))
        size = (tmp_path / "data.mdb").stat().st_size
        assert size < (env.info()["last_pgno"] + 1) * PAGE, "LMDB writes pages that it frees at once"
    assert find_damage(str(tmp_path / "data.mdb"), TABLE) == []
    with open(tmp_path / "data.mdb", "r+b") as file:
        file.truncate(size - PAGE)
    assert find_damage(str(tmp_path / "data.mdb"), TABLE)


@pytest.mark.parametrize("pages_max", [0, 1, 2, 5, 10])
def test_no_more_pages_are_read_than_asked_for(intact: bytes, tmp_path: Path, pages_max: int) -> None:
    assert _damage_in(intact, tmp_path, pages_max) == []
    content = bytearray(intact)
    _in_page(LONG, 10, "H", LEAF)(content)
    assert _damage_in(content, tmp_path, pages_max) == []
    _in_meta(24 + 48 + 40, "Q", 1 << 20)(content)
    assert _damage_in(content, tmp_path, pages_max)


def test_the_commit_that_a_reader_holds_is_looked_at(tmp_path: Path) -> None:
    path = str(tmp_path / "data.mdb")
    with lmdb.open(str(tmp_path), map_size=1 << 26, max_dbs=4) as env:
        table = env.open_db(b"table")
        reader = env.begin()
        for commit in range(2):
            assert find_damage(path, TABLE, reader.id()) == []
            with env.begin(write=True, db=table) as txn:
                for number in range(KEYS):
                    txn.put(_key(number), bytes(40 + commit))
        with pytest.raises(CommitGoneError):
            find_damage(path, TABLE, reader.id())
        reader.abort()
        assert find_damage(path, TABLE) == []


def test_a_pool_in_use_is_checked_as_of_its_last_commit(home: Home) -> None:
    pool = home.open()
    pool.create_disk("d", 1 << 20)
    pool.commit()
    look = (
        "import sys; from contextlib import nullcontext; from rowfs.store.check import check_pool;"
        "print(check_pool(sys.argv[1], hold=nullcontext))"
    )
    command = [sys.executable, "-c", look, str(home.path)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "([], False)\n"
    with open(home.path / "map/data.mdb", "r+b") as file:  # all but the meta pages
        file.seek(2 * PAGE)
        file.write(b"\xff" * PAGE * 64)
    assert "pages" in subprocess.run(command, capture_output=True, text=True, check=True).stdout
    home.abandon()


def test_a_damaged_map_is_refused_in_one_line_that_names_the_check(home: Home) -> None:
    with open(home.path / "map/data.mdb", "r+b") as file:
        file.truncate(2 * PAGE)
    with pytest.raises(PoolError, match=f"rowfs check {home.path} tells more$") as caught:
        home.open()
    assert isinstance(caught.value, MapDamagedError) and caught.value.findings


def test_a_map_is_made_in_the_format_that_is_known_whatever_lmdb_prefers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMDB_DEFAULT_LIB_VERSION", "1")
    home = Home(tmp_path / "new")
    assert find_damage(str(home.path / "map/data.mdb"), TABLES) == []
