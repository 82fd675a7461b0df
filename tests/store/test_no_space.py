"""What a host says that has no block for us is the same whether it is full (ENOSPC) or a quota is used up (EDQUOT)."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from rowfs.base.errors import NO_SPACE, NoSpaceError, StorageError
from rowfs.control.server import Server
from rowfs.persist import blockmap
from rowfs.persist.blockmap import BlockMap, MapNoSpaceError
from rowfs.persist.hostfs import Lock
from rowfs.store.pool import Pool
from tests.store.helpers import get, put

pytestmark = pytest.mark.parametrize("code", NO_SPACE)


def refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def test_a_write_to_the_data_file(pool: Pool, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = pool.create_disk("d", 1 << 20)
    put(pool, disk, 0, "one")

    def pwrite(*_: object) -> int:
        raise refuse(code)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", pwrite)
        with pytest.raises(NoSpaceError):
            put(pool, disk, 1, "two")
    put(pool, disk, 1, "three")
    assert get(pool, disk, 0, 2) == ["one", "three"]


@pytest.mark.parametrize("cut_short", [False, True])
def test_a_transaction_of_the_map(pool: Pool, code: int, cut_short: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    put(pool, pool.create_disk("d", 1 << 20), 0, "one")
    said = os.strerror(5 if cut_short else code)

    def begin(*_: object, **__: object) -> lmdb.Transaction:
        raise lmdb.DiskError(f"mdb_txn_commit: {said}")

    with monkeypatch.context() as patch:
        patch.setattr(BlockMap, "_put_pages", begin)
        if cut_short:
            patch.setattr(blockmap, "preallocate", lambda *_: False)
        batch = pool.commits.freeze()
        with pytest.raises(MapNoSpaceError):
            pool.commits.write(batch)
        patch.setattr(blockmap, "preallocate", lambda *_: True)
        with pytest.raises(StorageError if cut_short else MapNoSpaceError) as caught:
            pool.commits.write(batch)
        assert isinstance(caught.value, MapNoSpaceError) is not cut_short
    pool.commits.write(batch)
    pool.commits.finish(batch)


def test_the_line_of_who_holds_a_pool(tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: object) -> int:
        raise refuse(code)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        lock = Lock(str(tmp_path / "lock"), "the thing")
    lock.close()


def test_the_name_of_the_socket(tmp_path: Path, code: int) -> None:
    asked: list[str] = []

    class Full:
        def bind(self, address: str) -> None:
            if not asked:
                raise refuse(code)
            asked.append(address)

    server = Server(str(tmp_path), {}, make_room=lambda: asked.append("room"))
    server._bind_to(Full(), "name")  # type: ignore[arg-type]
    assert asked == ["room", "name"]
