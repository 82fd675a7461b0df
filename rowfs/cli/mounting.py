"""`mount` and `umount`: starting the daemon of a pool, and ending it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from errno import EIO
from typing import NoReturn

import rowfs
from rowfs.base.errors import BusyError, RowfsError, UsageError
from rowfs.cli.addresses import Address
from rowfs.cli.client import LOG_NAME, DaemonGoneError
from rowfs.cli.declared import command
from rowfs.cli.encoding import UTF8
from rowfs.cli.liveness import is_dead
from rowfs.cli.mounts import Mount, current_mounts, mount_at, resolve_path
from rowfs.cli.output import say, say_json
from rowfs.cli.session import ask
from rowfs.verbs.pools import MOUNT, UMOUNT

DAEMON_MODULE = "rowfs.process.daemon"
READY = b"ready\n"
ERROR_PREFIX = b"error: "


@command(MOUNT)
def mount(
    pool: str,
    mountpoint: str,
    foreground: bool,
    options: tuple[str, ...],
    read_only: bool,
    allow_other: bool,
    cache: int | None,
    other_owner: bool,
    as_json: bool,
) -> None:
    """Carries out `rowfs mount`."""
    words = [*options, *_option_words(read_only, allow_other, other_owner, cache)]
    if "remount" in ",".join(words).split(","):
        _remount(mountpoint, words, as_json)
        return
    place = _mount_place(pool, mountpoint)
    command = _daemon_command(place, words)
    if foreground:
        _become_daemon(command)
    _start_daemon(command, place)
    if as_json:
        say_json(ask(mount_at(place.mountpoint, current_mounts()) or place, "info"))
    else:
        say(f"{place.pool}: mounted on {place.mountpoint}")


def _remount(mountpoint: str, words: list[str], as_json: bool) -> None:
    from rowfs.cli.remounting import remount  # here: it is seldom wanted

    where = resolve_path(mountpoint, current_mounts())
    remount(where, ",".join(words).split(","))
    if as_json:
        say_json({})
    else:
        say(f"{where}: remounted")


def _mount_place(pool: str, mountpoint: str) -> Mount:
    """Both as absolute paths, for the daemon runs in `/`. Raises BusyError when a rowfs mount is there already."""
    mounts = current_mounts()
    place = Mount(resolve_path(mountpoint, mounts), resolve_path(pool, mounts))
    there = mount_at(place.mountpoint, mounts)
    if there is not None:
        if not is_dead(there):
            raise BusyError(f"{_shown_there(there)} already: end that first with rowfs umount")
        _take_away(there, force=True)  # its daemon was killed
    return place


def _shown_there(mount: Mount) -> str:
    """What a live mount shows, and whose process that is, as far as its daemon can be asked."""
    try:
        hello = ask(mount, "hello")
    except RowfsError:
        return f"{mount.mountpoint} shows {mount.pool}"
    return f"process {hello['pid']} shows {hello['pool']} on {mount.mountpoint}"


def _option_words(read_only: bool, allow_other: bool, other_owner: bool, cache: int | None) -> list[str]:
    words = ["ro"] * read_only + ["allow_other"] * allow_other + ["other_owner"] * other_owner
    return words if cache is None else [*words, f"cache={cache}"]


def _daemon_command(place: Mount, options: list[str]) -> list[str]:
    joined = ["-o", ",".join(options)] if options else []
    return [sys.executable, *UTF8, "-m", DAEMON_MODULE, place.pool, place.mountpoint, *joined]


def _daemon_environment() -> dict[str, str]:
    """The environment in which `python -m`, started in `/`, finds this very rowfs, even if it is not installed."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(rowfs.__file__)))
    if root in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
        return dict(os.environ)
    others = os.environ.get("PYTHONPATH")
    return os.environ | {"PYTHONPATH": f"{root}:{others}" if others else root}


def _become_daemon(command: list[str]) -> NoReturn:
    """Runs the daemon in place of this process. In `/`, as no directory of the user's may lend it modules."""
    environment = _daemon_environment()
    os.chdir("/")
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # the daemon takes it as soon as it can
    os.execve(command[0], [*command, "--foreground"], environment)


def _start_daemon(command: list[str], place: Mount) -> None:
    """Starts the daemon apart from this terminal and waits for its word on a pipe.

    Raises RowfsError when that is not that it is ready.
    """
    read_fd, write_fd = os.pipe()
    with os.fdopen(read_fd, "rb") as pipe:
        try:
            daemon = subprocess.Popen(
                [*command, "--ready-fd", str(write_fd)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env=_daemon_environment(),
                start_new_session=True,
                pass_fds=(write_fd,),
            )
        finally:
            os.close(write_fd)  # so that the pipe ends when the daemon does
        word = _first_word(pipe.readline, daemon)
    if word != READY:
        raise _why_not_ready(word, place, daemon)
    daemon.returncode = 0  # it outlives us: nothing is to be waited for, nor warned about


def _first_word(readline: Callable[[], bytes], daemon: subprocess.Popen[bytes]) -> bytes:
    """What the daemon says. Whoever interrupts the wait does not want the mount."""
    try:
        return readline()
    except BaseException:
        daemon.terminate()
        raise


def _why_not_ready(word: bytes, place: Mount, daemon: subprocess.Popen[bytes]) -> RowfsError:
    code = daemon.wait()  # its end of the pipe is closed, or it said why it ends
    if word.startswith(ERROR_PREFIX):
        kind = UsageError if code == UsageError.exit_code else RowfsError
        return kind(os.fsdecode(word.removeprefix(ERROR_PREFIX).rstrip()))
    how = "ended" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
    return RowfsError(f"the daemon {how} before the mount was ready: see {os.path.join(place.pool, LOG_NAME)}")


@command(UMOUNT)
def umount(address: Address, force: bool, as_json: bool) -> None:
    """Carries out `rowfs umount`."""
    mount = address.mount
    os.chdir("/")  # the shell's directory may be on the mount: that it holds it is enough
    try:
        _end_daemon(mount, force)
    except DaemonGoneError:
        if not is_dead(mount):
            raise BusyError(
                f"{mount.mountpoint} is alive, but its daemon cannot be reached from here: "
                f"unmount it with umount {mount.mountpoint}"
            ) from None
        _take_away(mount, force)
    if as_json:
        say_json({})
    else:
        say(f"{mount.pool}: unmounted from {mount.mountpoint}")


def _end_daemon(mount: Mount, force: bool) -> None:
    """Asks the daemon to end, and returns when it has. Its process is held before: a pid may soon be another's."""
    hello = ask(mount, "hello")
    if _is_bound(mount, hello.get("mountpoint", "")):
        _unmount_place(mount, force)
        return
    pidfd = _open_process(hello["pid"])
    try:
        ask(mount, "umount", force=force or None)
        _wait_for(pidfd)
    except RowfsError as error:
        # Not where it is busy: another namespace may have the mount. This is what is said last of what was lost.
        if error.errno == EIO and all(other.device != mount.device for other in current_mounts()):
            _wait_for(pidfd)
        raise
    finally:
        if pidfd is not None:
            os.close(pidfd)


def _wait_for(pidfd: int | None) -> None:
    if pidfd is not None:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll()


def _open_process(pid: int) -> int | None:
    """A handle on the process `pid`; None when it cannot be seen from here (another pid namespace)."""
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _is_bound(mount: Mount, mountpoint: str) -> bool:
    """Whether this is a bind mount of one that is at `mountpoint`: not a single one that was moved."""
    return mount.mountpoint != mountpoint and any(
        (other.device, other.mountpoint) == (mount.device, mountpoint) for other in current_mounts()
    )


def _take_away(mount: Mount, force: bool) -> None:
    """Unmounts what is dead. Raises RowfsError when that is refused."""
    try:
        _unmount_place(mount, force)
    except RowfsError as error:
        raise RowfsError(f"the daemon of {mount.pool} is gone, and its mount cannot be taken away: {error}") from None


def _unmount_place(mount: Mount, force: bool) -> None:
    command = ["fusermount3", "-u", *(["-z"] if force else []), "--", mount.mountpoint]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode != 0:
        why = os.fsdecode(done.stderr).strip() or f"{command[0]} failed"
        raise RowfsError(why)
