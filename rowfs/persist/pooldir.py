"""The directory of a pool, opened once, and its files: those of the pool's owner, and what they seem to be.

Whoever may write to the directory may put anything there under a file's name: a link to a file of somebody else, which
root would then truncate; a pipe, which would hold us up; a device. So the directory has to belong to us, unless told
otherwise; every file is looked at before it is opened, through a descriptor that leads nowhere else; and all of them
are found through the directory's descriptor, wherever the directory is moved meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator
from errno import EPERM

from rowfs.base.errors import NotFoundError, PoolError, RowfsError

_OTHERS = 0o022  # write permissions of group and others
CREATE_TRIES = 8  # for who makes and removes the file meanwhile


class ForeignError(PoolError):
    """Raised when a pool, or a file in it, is of another user, who can change it at any moment."""

    errno: int = EPERM


class PoolDirectory:
    """An open directory. `place` leads to it as long as this is open, wherever it is moved."""

    def __init__(self, path: str, other_owner: bool = False) -> None:
        """With `other_owner` it may belong to any user, and files in it, too.

        Raises ForeignError, NotFoundError, PoolError.
        """
        self.path = path
        self._fd = _opened_directory(path)
        try:
            found = os.fstat(self._fd)
            self._owners = {0, os.geteuid()} | ({found.st_uid} if other_owner else set())
            self._check_owner(found.st_uid, path)
            if found.st_mode & stat.S_IWOTH:
                raise ForeignError(f"anybody can write to {path}: take that away with chmod o-w {path}")
        except BaseException:
            os.close(self._fd)
            raise

    @property
    def place(self) -> str:
        """A path that leads to this very directory, for this process."""
        return f"/proc/self/fd/{self._fd}"

    def current_path(self) -> str:
        """Where the directory is now: its path, or the one that it was moved to."""
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(self.path), os.fstat(self._fd)):
                return self.path
        return os.readlink(self.place)

    def close(self) -> None:
        """Close it; `place` leads nowhere then."""
        os.close(self._fd)

    def _check_owner(self, uid: int, path: str) -> None:
        if uid not in self._owners:
            raise ForeignError(
                f"{path} belongs to {_user(uid)}, who can change it at any moment: "
                f"trust them with --other-owner (-o other_owner), or become them"
            )

    def open(self, name: str, flags: int, mode: int = 0o600) -> int:
        """A descriptor of a file, as `open_regular`. Raises ForeignError besides."""
        with self.naming():
            fd = open_regular(f"{self.place}/{name}", flags, mode)
        try:
            self._check_owner(os.fstat(fd).st_uid, self._named(name))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def check(self, *names: str) -> None:
        """Those of these files that are there are of whom they may be. Raises ForeignError."""
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                _check_regular(self._named(name), found)
                self._check_owner(found.st_uid, self._named(name))

    def check_directory(self, name: str, *files: str) -> None:
        """A directory in this one is one that its owner alone can change, and so are these files if they are there.

        Raises ForeignError, NotFoundError, PoolError.
        """
        path = self._named(name)
        try:
            found = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            raise NotFoundError(f"{path} is not there") from None
        if not stat.S_ISDIR(found.st_mode):
            raise PoolError(f"{path} is no directory")
        self._check_owner(found.st_uid, path)
        if found.st_mode & _OTHERS:
            raise ForeignError(f"{path} can be written by others: take that away with chmod go-w {path}")
        self.check(*(f"{name}/{file}" for file in files))

    def _named(self, name: str) -> str:
        return os.path.join(self.path, name)

    @contextlib.contextmanager
    def naming(self) -> Iterator[None]:
        """An error that leaves the block says where the directory is, not how this process gets there."""
        try:
            yield
        except RowfsError as error:
            error.args = (str(error).replace(self.place, self.path), *error.args[1:])
            raise
        except OSError as error:
            error.filename = str(error.filename).replace(self.place, self.path) if error.filename else self.path
            raise


def open_regular(path: str, flags: int, mode: int = 0o600) -> int:
    """A descriptor of a file, made with `mode` if the flags say so, if it is a regular one with one name.

    What else may be there is not even opened. Raises OSError, PoolError.
    """
    for _ in range(CREATE_TRIES):
        try:
            seen = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            if not flags & os.O_CREAT:
                raise
            with contextlib.suppress(FileExistsError):
                return os.open(path, flags | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
            continue
        try:
            _check_regular(path, os.fstat(seen))
            return os.open(f"/proc/self/fd/{seen}", flags & ~os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            error.filename = path
            raise
        finally:
            os.close(seen)
    raise PoolError(f"{path} is made and removed again and again by somebody else")


def _check_regular(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        what = "a symbolic link" if stat.S_ISLNK(found.st_mode) else "no regular file"
        raise PoolError(f"{path} is {what}, which nothing of a pool is")
    if found.st_nlink > 1:
        raise PoolError(f"{path} has {found.st_nlink} names (hard links): it may be a file of somebody else's, too")


def _opened_directory(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NotFoundError(f"{path} is not there") from None
    except OSError as error:
        raise PoolError(f"cannot open {path}: {error.strerror}") from None


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"
