"""The block map's file without LMDB's trust: pages are held against what they were before anybody believes them.

LMDB reads through a mapping, and a page that was damaged, cut off, or that the host cannot read makes it abort the
process, end it by SIGBUS, or say that something is not there. So in a process that has the map for itself

    reads      go through cursors of ours (_cursor.c) over the trees of LMDB's last commit. Pages are read with pread,
               and each has to have the digest that it had when it was written, or first seen
    a commit   is LMDB's, once all that it will read was found in order. It then sees copies of verified pages, and no
               others (_guard.c). What it wrote is read back, checked, and its digests are kept (_follow.c)
    meta pages are what they were before and after LMDB looks at them

What is not in order is a DamagedError: whoever gets it does not ask LMDB again. Without the extension, or with
ROWFS_NATIVE=0, there is none of this, and LMDB is trusted (persist.blockmap).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from types import ModuleType

from rowfs.base.format import TABLES
from rowfs.persist.mapcheck import PAGES_MAX, CommitGoneError, last_meta
from rowfs.persist.mappages import (
    META,
    METAS,
    NO_PAGE,
    PAGE_HEADER_BYTES,
    ROOT,
    BrokenError,
    MapPages,
    Meta,
    Root,
)

try:
    from rowfs.persist import _verified
except ImportError:
    _module: ModuleType | None = None
    DamagedError: type[Exception] = BrokenError
else:
    _module = _verified
    DamagedError = _verified.DamagedError

META_BYTES = PAGE_HEADER_BYTES + META.size
LASTING_BYTES = PAGE_HEADER_BYTES + 16  # of a meta page: what LMDB never writes again (magic, version, address)


class View:
    """The tables of one commit. Whoever has it keeps LMDB from reusing the commit's pages."""

    def __init__(self, pages: _verified.Pages, meta: Meta) -> None:
        """Raises DamagedError."""
        self._pages = pages
        self._end = meta.last_page + 1
        self.commit = meta.commit
        main = self._cursor(Root._make(ROOT.unpack(meta.main)))
        self.tables: dict[str, Root] = {}
        for name in TABLES:
            if main.set_key(name.encode()):
                content = main.value()
                if len(content) != ROOT.size:
                    raise DamagedError(f"the root of the table {name} has {len(content)} bytes")
                self.tables[name] = Root._make(ROOT.unpack(content))

    def has(self, table: str) -> bool:
        """Whether there is such a table."""
        return table in self.tables

    def entries(self, table: str) -> int:
        """How many keys a table has."""
        return self.tables[table].entries

    def cursor(self, table: str) -> _verified.Cursor:
        """A cursor over a table that is there. Raises DamagedError."""
        return self._cursor(self.tables[table])

    def _cursor(self, root: Root) -> _verified.Cursor:
        return self._pages.cursor(root.page, 0 if root.page == NO_PAGE else root.depth, self._end)


class VerifiedMap:
    """The file of a block map that no other process writes to."""

    @staticmethod
    def open(path: str) -> VerifiedMap | None:
        """The file at `path`, as it is now; None: the extension is not there. Raises DamagedError, OSError."""
        if _module is None or os.environ.get("ROWFS_NATIVE") == "0":
            return None
        return VerifiedMap(path)

    def __init__(self, path: str) -> None:
        self._path = path
        self._file = MapPages(path)
        try:
            with _broken():
                self.meta = last_meta(self._file.metas())
            self._pages = _verified.Pages(self._file.fileno(), self._file.page_bytes)
            self._heads = self._read_heads()
            self._follow(read_max=PAGES_MAX)
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        """Let go of the file, and of LMDB's mapping."""
        self._pages.unguard()
        self._file.close()

    def view(self, commit: int) -> View:
        """What a commit has: the last one, or one that LMDB has made since. Raises DamagedError."""
        if commit == self.meta.commit:
            return View(self._pages, self.meta)
        with _broken():
            meta = self._file.metas()[commit % METAS]
        if meta.commit != commit:
            raise DamagedError(f"the meta page of commit {commit} is not there")
        return View(self._pages, meta)

    # Commits

    def check_metas(self) -> None:
        """The meta pages are what they were. Raises DamagedError."""
        last = self.meta.commit % METAS
        for place, (now, before) in enumerate(zip(self._read_heads(), self._heads, strict=True)):
            compared = META_BYTES if place == last else LASTING_BYTES  # LMDB takes back half of one after a failure
            if now[:compared] != before[:compared]:
                raise DamagedError(f"meta page {place} is not what was written")

    def prepare(self, keys: Iterable[tuple[str, Iterable[bytes]]]) -> None:
        """LMDB is about to change these keys of tables: all that it will read is in order. Raises DamagedError."""
        self.check_metas()
        end = self.meta.last_page + 1
        for record, native in ((self.meta.free, True), (self.meta.main, False)):
            root = Root._make(ROOT.unpack(record))
            self._pages.prepare_all(root.page, 0 if root.page == NO_PAGE else root.depth, end, native)
        tables = View(self._pages, self.meta).tables
        for table, wanted in keys:
            if table in tables and tables[table].page != NO_PAGE:
                self._pages.prepare(tables[table].page, tables[table].depth, end, sorted(wanted))

    def check_unharmed(self) -> None:
        """LMDB saw nothing damaged. Raises DamagedError: what it did since then must not be used."""
        page = self._pages.struck()
        if page is not None:
            raise DamagedError(f"page {page} was damaged while a commit needed it")

    def release(self) -> None:
        """LMDB's transaction is over: it does not need the pages any more that it saw."""
        self._pages.release()

    def follow(self) -> None:
        """What LMDB has written since is the last commit now, if it is in order. Raises DamagedError."""
        with _broken():
            meta = last_meta(self._file.metas())
        if meta.commit == self.meta.commit:
            return
        if meta.commit != self.meta.commit + 1:
            raise DamagedError(f"after commit {self.meta.commit} there is commit {meta.commit}")
        self.meta, self._heads = meta, self._read_heads()
        self._follow(read_max=0)

    def _follow(self, read_max: int) -> None:
        self._pages.follow(self.meta.free, self.meta.main, self.meta.last_page + 1, read_max)

    def _read_heads(self) -> list[bytes]:
        with _broken():
            return [self._file.read(place * self._file.page_bytes, META_BYTES) for place in range(METAS)]

    # LMDB's mapping

    def guard(self) -> bool:
        """Have LMDB, which has mapped the file, see nothing but verified pages. Whether that can be done.

        Call it anew when the file was mapped anew. Where it cannot be done SIGBUS is kept from ending the process.
        """
        status = os.fstat(self._file.fileno())
        mapped = list(_mappings(status.st_ino))
        if len(mapped) != 1:
            return False
        start, end = mapped[0]
        return self._pages.guard(start, end - start, tuple(self._descriptors(status)))

    def unguard(self) -> None:
        """LMDB is about to map the file anew."""
        self._pages.unguard()

    def _descriptors(self, status: os.stat_result) -> Iterator[int]:
        """LMDB's descriptors of the file."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):  # that of the listing
                held = os.fstat(int(name))
                if int(name) != self._file.fileno() and os.path.samestat(held, status):
                    yield int(name)


@contextlib.contextmanager
def _broken() -> Iterator[None]:
    try:
        yield
    except (BrokenError, CommitGoneError) as error:
        raise DamagedError(str(error)) from None
    except OSError as error:
        raise DamagedError(f"the file cannot be read: {error.strerror}") from None


def _mappings(inode: int) -> Iterator[tuple[int, int]]:
    """Where this process has mapped a file, shared and to be read alone.

    By its inode: what the kernel says of its device is not what stat(2) says, on btrfs and overlayfs.
    """
    with open("/proc/self/maps", "rb") as file:
        for line in file.read().split(b"\n"):
            fields = line.split(None, 5)
            if len(fields) > 4 and fields[1] == b"r--s" and fields[2].strip(b"0") == b"" and int(fields[4]) == inode:
                start, end = (int(number, 16) for number in fields[0].split(b"-"))
                yield start, end
