"""Connections to the daemon of a mount, and to no other: whoever can mount something can call it as they like.

A daemon listens on POOL/control.sock and on an abstract socket called by its mount's device number. The first is lost
when the pool's directory is moved, when the host is read-only, or when somebody removes it; the second is not seen from
another network namespace. Who answers has to be who mounted, as the kernel tells of both, and to name that very mount.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Collection

from rowfs.base.errors import RowfsError
from rowfs.base.format import abstract_socket
from rowfs.cli.client import Client, connect, connect_error, gone
from rowfs.cli.mounts import Mount

# Nobody is there, the directory is no more, or something else is in the socket's place: the other one may be there.
_NO_SOCKET = (errno.ECONNREFUSED, errno.ENOTDIR, errno.EPROTOTYPE, errno.ELOOP)


def client_of(mount: Mount) -> Client:
    """A connection to the daemon of this very mount.

    Raises DaemonGoneError when there is none, RowfsError when it will not speak with this user.
    """
    why: RowfsError = gone(mount.pool)
    for way in (_to_file, _to_abstract):
        try:
            connection = way(mount)
        except RowfsError as error:
            if error.errno == errno.EACCES:
                why = error
            elif error.errno not in _NO_SOCKET:
                raise
            continue
        client = Client(mount.pool, connection)
        try:
            if client.peer == mount.owner and client.call("hello").get("device") == mount.device:
                return client
        except BaseException as error:
            client.close()
            if isinstance(error, RowfsError) and error.errno == errno.ENOSYS:
                raise _other_version(mount) from None
            raise
        client.close()
    raise why


def mount_of_pool(pool: str, mounts: Collection[Mount]) -> Mount | None:
    """Which of `mounts` shows the pool in this directory: the one that the pool's own daemon names.

    Where none can be asked: one that says it is of this pool, and is of the user whose directory that is.
    """
    try:
        owner, device = _owner_and_device(pool)
    except (RowfsError, OSError):
        return _mount_called(pool, mounts)
    return next((mount for mount in mounts if mount.device == device and mount.owner == owner), None)


def _owner_and_device(pool: str) -> tuple[int, str]:
    """Whose daemon has the pool in this directory open, and the device number of its mount."""
    with Client(pool) as client:
        return client.peer, str(client.call("hello").get("device"))


def _mount_called(pool: str, mounts: Collection[Mount]) -> Mount | None:
    try:
        owners = {0, os.geteuid(), os.stat(pool).st_uid}
    except OSError:  # it was moved, or must not be looked at
        owners = {0, os.geteuid()}
    return next((mount for mount in mounts if mount.pool == pool and mount.owner in owners), None)


def _other_version(mount: Mount) -> RowfsError:
    return RowfsError(
        f"the daemon of {mount.pool} is of another version of rowfs: end it with umount {mount.mountpoint}, mount again"
    )


def _to_file(mount: Mount) -> socket.socket:
    return connect(mount.pool)


def _to_abstract(mount: Mount) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.connect(abstract_socket(mount.device))
    except OSError as error:
        connection.close()
        raise connect_error(error, mount.pool) from error
    return connection
