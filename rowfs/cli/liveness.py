"""Whether a mount is dead: only then it is taken away. A daemon that cannot be reached may serve it all the same."""

from __future__ import annotations

import errno
import os
import pwd
import select
import signal

from rowfs.cli.mounts import Mount

ANSWER_S = 5.0  # what a daemon that is alive, or the kernel for a dead one, may take
_DEAD = (errno.ENOTCONN, errno.ECONNABORTED, errno.ECONNREFUSED)  # what the kernel says when nobody has /dev/fuse open


def is_dead(mount: Mount) -> bool:
    """Whether the kernel has nobody any more who serves a mount. One that does not answer is not dead."""
    child = os.fork()
    if child == 0:
        os._exit(_asked(mount))
    handle = os.pidfd_open(child)
    try:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        if not poll.poll(ANSWER_S * 1000):
            os.kill(child, signal.SIGKILL)  # it may hang on in the kernel: nobody waits for it
            return False
    finally:
        os.close(handle)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in _DEAD


def _asked(mount: Mount) -> int:
    """The errno of asking a mount for its figures, in a process of its own: that may never come back."""
    try:
        fd = os.open(mount.mountpoint, os.O_PATH | os.O_CLOEXEC)
        if os.geteuid() == 0 and mount.owner:  # what a user has mounted answers that user alone
            group = pwd.getpwuid(mount.owner).pw_gid
            os.setgroups([])
            os.setresgid(group, group, group)
            os.setresuid(mount.owner, mount.owner, mount.owner)
        os.fstatvfs(fd)
    except OSError as error:
        return error.errno or errno.EIO
    except BaseException:
        return errno.EIO
    return 0
