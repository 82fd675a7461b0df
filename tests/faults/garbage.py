"""Garbage in LMDB's file and in its records, and everything that is done with a pool afterwards: nothing may crash.

python -m tests.faults.garbage [--kind pages|records] [--seeds 0:1000]

Each seed damages a copy of one pool and works on it in a process of its own: what LMDB does with garbage may end it.
Those processes are forked from one that never opened LMDB. Printed are the seeds that ended one (a signal), hung, or
raised what is no RowfsError, and how often the pool was refused, found damaged, or taken as it is.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rowfs.base.errors import ExistsError, NotFoundError, RowfsError
from rowfs.base.format import TABLES
from rowfs.base.units import BLOCK_BYTES, PAGE_BYTES
from rowfs.store.check import check_pool
from rowfs.store.figures import finish
from rowfs.store.pool import Pool, init_pool

LMDB_PAGE = 4096
SEED_S = 60  # a seed that takes longer hangs
FINE, FAULT = 0, 3
GOOD = {"refused", "damaged", "taken"}
MAP_FILE = "map/data.mdb"
OLDER_MAP = "older.mdb"  # beside the pool: what the file was some commits ago


def make_pool(path: Path) -> None:
    """A pool with trees of several levels, long values and a free list."""
    init_pool(str(path))
    pool = Pool(str(path))
    disk = pool.create_disk("disk", 1024 * PAGE_BYTES)
    for page in range(3):  # every other block: a version that needs a page of LMDB's for itself
        for block in range(0, 512, 2):
            pool.write(disk, page * PAGE_BYTES + block * BLOCK_BYTES, b"a" * BLOCK_BYTES)
    for page in range(3, 120):
        pool.write(disk, page * PAGE_BYTES, b"b" * BLOCK_BYTES)
    other = pool.create_disk("other", PAGE_BYTES)
    pool.write(other, 0, b"c" * BLOCK_BYTES)
    for number in range(40):
        pool.snapshot(disk, f"s{number}")
        pool.snapshot(other, f"o{number}")
        pool.write(disk, number * PAGE_BYTES, b"d" * BLOCK_BYTES)
        if number == 30:
            pool.commit()
            shutil.copy(path / MAP_FILE, path.parent / OLDER_MAP)
        if number % 4 == 0:
            pool.commit()
            pool.delete_snapshot(disk.chain[f"s{number // 2}"])
            pool.reclaim()
    pool.clone(disk.chain["s39"], ["clone", "clone2"])
    pool.write(pool.catalog.disk("clone"), 0, b"f" * BLOCK_BYTES)
    pool.rollback(other, other.chain["o20"])
    pool.commit()
    pool.delete_disk(pool.catalog.disk("clone2"))
    pool.close()


# Damage to LMDB's pages


def damage_pages(rng: random.Random, path: Path, older: bytes) -> None:
    """Do something to the file of the block map that its owner would not."""
    target = path / MAP_FILE
    content = bytearray(target.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        rng.choice(PAGE_DAMAGE)(rng, content, older)
    target.write_bytes(content)


def _some_page(rng: random.Random, content: bytearray) -> int:
    """Where a page begins: any, or (to be fair to the few) one of a kind."""
    starts = range(0, len(content), LMDB_PAGE)
    kind = rng.choice((None, 1, 2, 4, 8))
    of_kind = [at for at in starts if content[at + 10] == kind]
    return rng.choice(of_kind or starts)


def _garbage(rng: random.Random, content: bytearray, older: bytes) -> None:
    start = _some_page(rng, content) + rng.choice((0, 10, 16, 24, 2000, 4000, rng.randrange(LMDB_PAGE)))
    length = min(rng.choice((1, 2, 8, 64, 1500, 4096)), len(content) - start)
    content[start : start + length] = rng.choice((rng.randbytes, bytes))(length)


def _flipped_bit(rng: random.Random, content: bytearray, older: bytes) -> None:
    content[_some_page(rng, content) + rng.randrange(LMDB_PAGE)] ^= 1 << rng.randrange(8)


def _set_number(rng: random.Random, content: bytearray, at: int, size: int) -> None:
    """Set a field of 2, 4 or 8 bytes to something near, far or of another page."""
    if at + size > len(content):
        return
    old = int.from_bytes(content[at : at + size], "little")
    new = rng.choice(
        (old + 1, old - 1, old + 2, old - 2, 0, 1, 2, 3, -1, 1 << 15, old ^ 1 << rng.randrange(8 * size), old * 2)
        + (rng.randrange(len(content) // LMDB_PAGE), rng.getrandbits(8 * size), rng.randrange(LMDB_PAGE))
    )
    content[at : at + size] = (new % (1 << 8 * size)).to_bytes(size, "little")


def _header_field(rng: random.Random, content: bytearray, older: bytes) -> None:
    at, size = rng.choice(((0, 8), (8, 2), (10, 2), (12, 2), (14, 2), (12, 4)))
    _set_number(rng, content, _some_page(rng, content) + at, size)


def _meta_field(rng: random.Random, content: bytearray, older: bytes) -> None:
    base = rng.choice((0, LMDB_PAGE))
    roots = [(24 + 48 * tree + at, size) for tree in (0, 1) for at, size in _ROOT_FIELDS]
    at, size = rng.choice([(0, 4), (4, 4), (8, 8), (16, 8), (120, 8), (128, 8), *roots])
    _set_number(rng, content, base + 16 + at, size)


_ROOT_FIELDS = ((0, 4), (4, 2), (6, 2), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8))


def _nodes(content: bytearray, start: int) -> list[int]:
    """Where the nodes of a page begin, as far as they can."""
    kind, lower = struct.unpack_from("<HH", content, start + 10)
    if kind not in (1, 2) or not 16 <= lower <= LMDB_PAGE:
        return []
    pointers = struct.unpack_from(f"<{(lower - 16) // 2}H", content, start + 16)
    return [start + pointer for pointer in pointers if pointer <= LMDB_PAGE - 8]


def _pointer(rng: random.Random, content: bytearray, older: bytes) -> None:
    start = _some_page(rng, content)
    count = len(_nodes(content, start))
    if count:
        places = [start + 16 + 2 * rng.randrange(count) for _ in range(2)]
        if rng.random() < 0.5:
            _set_number(rng, content, places[0], 2)
        else:
            first, second = (bytes(content[at : at + 2]) for at in places)
            content[places[0] : places[0] + 2], content[places[1] : places[1] + 2] = second, first


def _node_field(rng: random.Random, content: bytearray, older: bytes) -> None:
    nodes = _nodes(content, _some_page(rng, content))
    if nodes:
        at, size = rng.choice(((0, 2), (2, 2), (4, 2), (6, 2), (0, 4)))
        _set_number(rng, content, rng.choice(nodes) + at, size)


def _node_content(rng: random.Random, content: bytearray, older: bytes) -> None:
    """Keys, long values' page numbers, the numbers of the free list, the roots of tables."""
    nodes = _nodes(content, _some_page(rng, content))
    if not nodes:
        return
    node = rng.choice(nodes)
    key_bytes = min(int.from_bytes(content[node + 6 : node + 8], "little"), 64)
    value = node + 8 + key_bytes
    places = [(node + 8 + rng.randrange(key_bytes or 1), 1), (value, 8), (value + 8 * rng.randrange(8), 8)]
    at, size = rng.choice([*places, *((value + at, size) for at, size in _ROOT_FIELDS)])
    _set_number(rng, content, at, size)


def _moved_page(rng: random.Random, content: bytearray, older: bytes) -> None:
    """One page over another, or two changed places; with or without the numbers that fit."""
    first, second = _some_page(rng, content), _some_page(rng, content)
    pages = [bytes(content[at : at + LMDB_PAGE]) for at in (first, second)]
    fitting = rng.random() < 0.7
    moves = [(second, pages[0]), (first, pages[1])][: rng.choice((1, 2))]
    for at, page in moves:
        content[at : at + LMDB_PAGE] = (at // LMDB_PAGE).to_bytes(8, "little") + page[8:] if fitting else page


def _lost_write(rng: random.Random, content: bytearray, older: bytes) -> None:
    """A page that is as it was some commits ago."""
    at = _some_page(rng, content)
    page = older[at : at + LMDB_PAGE]
    content[at : at + len(page)] = page


def _cut_off(rng: random.Random, content: bytearray, older: bytes) -> None:
    at = rng.randrange(len(content))
    if rng.random() < 0.5:
        del content[max(at, 2 * LMDB_PAGE) :]
    else:
        content[at:] = bytes(len(content) - at)


PageDamage = Callable[[random.Random, bytearray, bytes], None]
PAGE_DAMAGE: tuple[PageDamage, ...] = (
    _garbage,
    _flipped_bit,
    _header_field,
    _header_field,
    _meta_field,
    _pointer,
    _node_field,
    _node_field,
    _node_content,
    _node_content,
    _moved_page,
    _lost_write,
    _cut_off,
)


# Damage to records, through LMDB


def damage_records(rng: random.Random, path: Path, older: bytes) -> None:
    """Change, drop, add and rename records of any table."""
    import lmdb

    with lmdb.open(str(path / "map"), max_dbs=len(TABLES) + 8, map_size=1 << 30) as env:
        for _ in range(rng.choice((1, 1, 2, 5))):
            table = env.open_db(rng.choice(TABLES).encode(), create=False)
            with env.begin(write=True, db=table) as txn:
                items = [(bytes(key), bytes(value)) for key, value in txn.cursor()]
                if items:
                    _damage_record(rng, txn, *rng.choice(items), items)


def _damage_record(rng: random.Random, txn: object, key: bytes, value: bytes, items: list[tuple[bytes, bytes]]) -> None:
    put, delete = txn.put, txn.delete  # type: ignore[attr-defined]
    match rng.randrange(6):
        case 0:
            delete(key)
        case 1:
            put(_changed(rng, key) or b"x", value)
        case 2:
            delete(key)
            put(_changed(rng, key) or b"x", value)
        case 3:
            put(key, rng.choice(items)[1])
        case _:
            put(key, _changed(rng, value))


def _changed(rng: random.Random, value: bytes) -> bytes:
    content = bytearray(value)
    match rng.randrange(7):
        case 0:
            return rng.randbytes(rng.choice((0, 1, 3, 5, 8, 12, 60)))
        case 1:
            return value[: rng.randrange(len(value) + 1)]
        case 2:
            return value + rng.randbytes(rng.choice((1, 4)))
        case 3 if value.startswith(b"{"):
            return _changed_field(rng, value)
        case 4 if value.startswith(b"{"):
            return rng.choice((b"{}", b"[]", b"null", b"1", b'"x"', b'{"id":1}'))
        case _ if value.startswith(b"{") and rng.random() < 0.7:
            return _changed_field(rng, value)
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def _changed_field(rng: random.Random, value: bytes) -> bytes:
    import json

    try:
        record = json.loads(value)
    except ValueError:  # damaged before
        return value[1:]
    field = rng.choice(list(record))
    old = record[field]
    numbers = (old + 1, old - 1, old + 300) if isinstance(old, int) else ()
    strange: tuple[object, ...] = (None, "", "x", -1, 0, 1, 2, 3, 7, 1 << 20, 1 << 33, 1 << 70, 1.5, [], {}, True)
    new = rng.choice(strange + ("a/b", "..", "\0", "n" * 300, 0xFFFFFFFF) + numbers)
    if rng.random() < 0.1:
        del record[field]
    else:
        record[field] = new
    return json.dumps(record).encode()


KINDS: dict[str, Callable[[random.Random, Path, bytes], None]] = {"pages": damage_pages, "records": damage_records}


# Working with it


class Work:
    """Everything that can be done with a pool. What is no RowfsError goes out."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.told: list[str] = []

    @contextmanager
    def trying(self) -> Iterator[None]:
        """An error of rowfs is as good as success."""
        try:
            yield
        except RowfsError as error:
            if "\n" in str(error):
                raise ValueError(f"not one line: {error}") from None
            if not isinstance(error, ExistsError | NotFoundError):
                self.told.append(str(error))

    @contextmanager
    def changing(self) -> Iterator[None]:
        """So is a broken invariant, once records that can be read contradict each other: the mount answers EIO."""
        with self.trying():
            try:
                yield
            except AssertionError as error:
                self.told.append(f"assertion: {error}")

    def run(self) -> str:
        """All of it. How the pool was taken: refused, found damaged, taken."""
        with self.trying():
            findings, _ = check_pool(self.path)
            self.told += [finding.check for finding in findings]
        taken = self._use(read_only=True)
        taken = self._use(read_only=False) or taken
        with self.trying():
            check_pool(self.path, repair=True)
        self._use(read_only=False)
        return ("damaged" if self.told else "taken") if taken else "refused"

    def _use(self, read_only: bool) -> bool:
        with self.trying():
            pool = Pool(self.path, read_only=read_only)
            with self.changing():
                self._look(pool)
                if not read_only:
                    self._change(pool)
            with self.changing():
                pool.close()
            return True
        return False

    def _look(self, pool: Pool) -> None:
        for disk in list(pool.catalog.disks.values()):
            for target in (disk, *list(disk.chain.values())[-3:]) if disk.head else list(disk.chain.values())[-3:]:
                for page in (0, 1, 2, 5, 90, 119, 700):
                    with self.trying():
                        pool.read(target, page * PAGE_BYTES, 2 * BLOCK_BYTES)
            for snapshot in list(disk.chain.values())[:2]:
                with self.trying():
                    finish(pool.figures.freed_by([snapshot]))

    def _change(self, pool: Pool) -> None:
        for number, disk in enumerate(list(pool.catalog.live())):
            self._change_disk(pool, disk.name, number)
            with self.changing():
                pool.commit()
        with self.changing():
            pool.reclaim()
        for disk in list(pool.catalog.live())[:2]:
            with self.changing():
                pool.delete_disk(disk, keep_snapshots=False)
        with self.changing():
            pool.reclaim()

    def _change_disk(self, pool: Pool, name: str, number: int) -> None:
        disk = pool.catalog.disk(name)
        for page in (0, 1, 7, 100, 301, 900):
            with self.changing():
                pool.write(disk, page * PAGE_BYTES + BLOCK_BYTES, b"new" + bytes(BLOCK_BYTES))
        with self.changing():
            pool.snapshot(disk, "new")
        with self.changing():
            pool.punch(disk, 0, PAGE_BYTES)
        for snapshot in list(disk.chain.values())[1:12:3]:
            with self.changing():
                pool.delete_snapshot(snapshot)
        with self.changing():
            pool.commit()
        if disk.chain:
            with self.changing():
                pool.clone(next(iter(disk.chain.values())), [f"copy{number}"])
            with self.changing():
                pool.rollback(disk, next(iter(disk.chain.values())))
        with self.changing():
            pool.reclaim()
        with self.changing():
            pool.resize(disk, 5 * PAGE_BYTES)


# Driving it


def run_seed(seed: int, kind: str, base: Path, home: Path) -> tuple[str, str]:
    """What came of one seed ("signal …", "hung", "fault", or how the pool was taken), and what it printed."""
    report = home / f"report-{seed}"
    pid = os.fork()
    if pid == 0:
        _be_child(seed, kind, base, home / f"pool-{seed}", report)
    _, status = os.waitpid(pid, 0)
    shutil.rmtree(home / f"pool-{seed}", ignore_errors=True)
    text = report.read_text(errors="replace")
    report.unlink()
    if os.WIFSIGNALED(status):
        number = signal.Signals(os.WTERMSIG(status))
        return ("hung" if number == signal.SIGALRM else f"signal {number.name}"), text
    if os.WEXITSTATUS(status) != FINE or "Traceback" in text:
        return "fault", text
    return text.split()[-1], text


def _be_child(seed: int, kind: str, base: Path, path: Path, report: Path) -> None:
    fd = os.open(report, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor in (1, 2):
        os.dup2(fd, descriptor)
    code = FAULT
    try:
        signal.alarm(SEED_S)
        shutil.copytree(base, path)
        KINDS[kind](random.Random(seed), path, (base.parent / OLDER_MAP).read_bytes())
        os.write(1, f"{Work(path).run()}\n".encode())
        code = FINE
    except BaseException:
        os.write(2, traceback.format_exc().encode(errors="replace"))
    finally:
        os._exit(code)


def run(kind: str, first: int, end: int) -> Counter[str]:
    """How often each outcome came. What is not as it should be is printed."""
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        base = home / "pool"
        pid = os.fork()  # here LMDB must not be opened
        if pid == 0:
            make_pool(base)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0, "the pool could not be made"
        for seed in range(first, end):
            outcome, text = run_seed(seed, kind, base, home)
            counts[outcome] += 1
            if outcome not in GOOD:
                print(f"--- seed {seed}: {outcome}\n{text[-3000:]}", flush=True)
    return counts


def main() -> int:
    """Run some seeds; 1: something crashed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="pages")
    parser.add_argument("--seeds", default="0:1000")
    arguments = parser.parse_args()
    first, end = map(int, arguments.seeds.split(":"))
    counts = run(arguments.kind, first, end)
    print(f"{arguments.kind} {first}:{end}", dict(counts))
    return 1 if counts.keys() - GOOD else 0


if __name__ == "__main__":
    sys.exit(main())
