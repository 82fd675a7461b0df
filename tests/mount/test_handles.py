"""File handles, as an NFS server keeps them: name_to_handle_at(2) and open_by_handle_at(2)."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

from tests.mount.helpers import MIB, Mounted, noise, write_file

HANDLE_BYTES = 128  # MAX_HANDLE_SZ
_libc = ctypes.CDLL(None, use_errno=True)


def handle_of(path: str) -> ctypes.Array[ctypes.c_char]:
    """The handle of a file: struct file_handle."""
    handle = ctypes.create_string_buffer(HANDLE_BYTES.to_bytes(4, "little") + bytes(4 + HANDLE_BYTES))
    mount_id = ctypes.c_int()
    assert _libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount_id), 0) == 0
    return handle


def opened(mounted: Mounted, handle: ctypes.Array[ctypes.c_char]) -> int:
    """A descriptor of the file of a handle. Raises OSError."""
    root = os.open(mounted.mnt, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fd = int(_libc.open_by_handle_at(root, handle, os.O_RDONLY))
        if fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        return fd
    finally:
        os.close(root)


def test_a_handle_is_good_for_ever(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    mounted.cli("create", ":gone", "1M")
    write_file(mounted.path("vm"), noise("vm", MIB))
    mounted.cli("snapshot", ":vm@s")
    paths = [mounted.path(), mounted.path("vm"), mounted.path(".snapshots/vm"), mounted.snapshot_path("vm", "s")]
    handles = [handle_of(path) for path in paths]
    gone = handle_of(mounted.path("gone"))
    mounted.remount()  # more than an eviction: another kernel's file system, and another daemon
    for path, handle in zip(paths, handles, strict=True):
        fd = opened(mounted, handle)
        try:
            assert os.path.samestat(os.fstat(fd), os.stat(path))
            if not os.path.isdir(path):
                assert os.pread(fd, MIB, 0) == noise("vm", MIB)
        finally:
            os.close(fd)
    mounted.cli("delete", ":gone")
    with pytest.raises(OSError) as caught:
        opened(mounted, gone)
    assert caught.value.errno == errno.ESTALE
