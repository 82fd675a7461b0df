"""The daemon: one process, one pool, one mount.

python -m rowfs.process.daemon POOL MNT [-o OPTIONS] [--foreground] [--ready-fd N]

`rowfs mount` starts it and waits on the descriptor for `ready` or `error: …`, one line.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import os
import signal
import string
import sys
import time
from types import FrameType
from urllib.parse import quote

import trio

from rowfs.base.errors import BusyError, HeldError, RowfsError, StorageError, UsageError, system_error_line
from rowfs.base.format import LOG_FILE
from rowfs.base.names import printable
from rowfs.control.methods import Methods
from rowfs.control.server import Server
from rowfs.host.journald import Journal
from rowfs.host.views import holders_elsewhere
from rowfs.mount import session
from rowfs.mount.operations import Operations
from rowfs.native import extension
from rowfs.process.logs import log_to
from rowfs.process.mounting import check_mountpoint, is_mounted, tune, unmount
from rowfs.process.options import Options, parse_options
from rowfs.process.provisions import lay_in
from rowfs.service.accounting import Accountant
from rowfs.service.emptying import empty_on_time
from rowfs.service.kernelcache import run_apart
from rowfs.service.reporting import Reporter
from rowfs.service.service import Service
from rowfs.service.tasks import alone, contained, log_fault
from rowfs.service.watching import Watcher
from rowfs.store.pool import Pool, is_pool, open_log

log = logging.getLogger("rowfs")

SWITCH_INTERVAL_S = 0.0002  # with Python's 5 ms the commit thread starves beside a busy event loop
ELSEWHERE_S = 5.0  # namespaces come and go, as services are started
RESTING_S = 1.0  # until no file is open any more for what is written back ahead of snapshots: milliseconds
NAMED = "".join(
    sorted(set(string.punctuation) - set("%,\\"))
)  # beside letters and digits: as they are in a mount's source
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
GOODBYE_S = 5.0  # for what a daemon still has to do when its mount is gone


def main() -> int:
    """Run a daemon until its mount is gone. 0: everything is durable."""
    arguments = _arguments()
    for number in ENDING:
        signal.signal(number, _ends_already)
    signal.pthread_sigmask(signal.SIG_BLOCK, ENDING)  # until they can be obeyed in order
    try:
        _check_names()
        daemon = _start(arguments)
    except Exception as error:
        return _refuse(arguments, error)
    try:
        trio.run(daemon.run, arguments.ready_fd)
    except BaseException as fault:  # whatever it is, the end comes in order
        daemon.broken = True
        if daemon.ready:
            log_fault("the daemon", fault)
        else:
            _refuse(arguments, alone(fault))
    finally:
        daemon.close()
    return 1 if daemon.failed else 0


def _start(arguments: argparse.Namespace) -> Daemon:
    """A mount that nobody serves yet. Raises RowfsError, OSError."""
    options = parse_options(arguments.options)
    check_mountpoint(arguments.mountpoint, arguments.pool)
    if is_pool(arguments.pool):  # else nothing is made there
        _begin_log(arguments, options.other_owner)
    lay_in()
    gc.disable()  # all that a pool has in memory comes now, and stays: the collector would look at it again and again
    pool = _open(arguments.pool, options)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.freeze()  # a look at all of a pool of 20,000 snapshots takes it 35 ms
    gc.enable()
    try:
        daemon = Daemon(pool, arguments.mountpoint, options)
        daemon.mount()
    except BaseException:
        pool.close()
        raise
    return daemon


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="rowfs.process.daemon", description="The daemon behind rowfs mount.")
    parser.add_argument("pool", type=os.path.abspath)
    parser.add_argument("mountpoint", type=os.path.abspath)
    parser.add_argument("-o", dest="options", default="")
    parser.add_argument("--foreground", action="store_true")
    parser.add_argument("--ready-fd", type=int)
    return parser.parse_args()


def _check_names() -> None:
    """Names are bytes, and bytes of UTF-8 where they are text, whatever the locale. Raises UsageError."""
    if sys.getfilesystemencoding() != "utf-8":
        raise UsageError("the daemon runs in UTF-8 alone: start it as python -X utf8, as rowfs mount does")


def _begin_log(arguments: argparse.Namespace, other_owner: bool = False) -> None:
    """Log to the pool's directory, or in the foreground to stderr. Raises RowfsError, OSError."""
    log_to(
        None
        if arguments.foreground
        else lambda flags, mode: open_log(arguments.pool, flags, mode, other_owner=other_owner)
    )


def _open(path: str, options: Options) -> Pool:
    """The pool; if it was just unmounted, when its daemon is done. Raises RowfsError."""
    deadline = time.monotonic() + GOODBYE_S
    while True:
        try:
            return Pool(
                path,
                options.read_only,
                options.cache_bytes,
                other_owner=options.other_owner,
                recovery=options.recovery,
            )
        except HeldError as error:
            if (error.mounted_as and is_mounted(error.mounted_as)) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _refuse(arguments: argparse.Namespace, error: BaseException) -> int:
    """Say in one line why there is no mount; the exit code. What nobody foresaw goes into the log in full."""
    line = system_error_line(error) if isinstance(error, OSError) else str(error)
    if not isinstance(error, RowfsError | OSError):
        path = os.path.join(arguments.pool, LOG_FILE)
        if not log.hasHandlers():
            with contextlib.suppress(OSError, RowfsError):  # without a log the line is all there is
                _begin_log(arguments)
        log_fault("mounting the pool", error)
        line = f"a fault in rowfs itself: {type(error).__name__}: {error} ({path} shows where)"
    line = printable(line)  # one line, whatever names are in it
    if arguments.ready_fd is None:
        print(f"rowfs: {line}", file=sys.stderr)
    else:
        with contextlib.suppress(BrokenPipeError):
            os.write(arguments.ready_fd, f"error: {line}\n".encode())
    return error.exit_code if isinstance(error, RowfsError) else RowfsError.exit_code


class Daemon:
    """A pool and its mount, from mounting to the last commit."""

    def __init__(self, pool: Pool, mountpoint: str, options: Options) -> None:
        self._pool = pool
        self._mountpoint = mountpoint
        self._options = options
        pool.io.zeros.after_s = options.zeros_s
        self._service = Service(pool, mountpoint, session.invalidate)
        born_ns = pool.catalog.pool.created_ns
        self._own = self._service.own
        self._operations = Operations(self._service, os.getuid(), os.getgid(), born_ns, options.shown)
        methods = Methods(self._service, self._unmount)
        self._policies = methods.policies
        self._reporter = Reporter(self._service, Journal())
        self._server = Server(pool.directory.place, methods.table(), lambda: self._own.device, pool.release_reserve)
        self._over = trio.Event()  # unmounted, and everything durable that can be
        self.ready = False  # whoever waits for the mount knows that it is there
        self.broken = False  # a fault has ended it
        self._gone = False  # the kernel has no mount of ours any more
        self._left = False  # though we stopped serving it
        self._lost: str | None = None  # why not everything became durable, though no commit failed

    def mount(self) -> None:
        """Mount. Raises RowfsError when libfuse cannot."""
        words = {"default_permissions", "subtype=rowfs", f"fsname={_escaped(self._pool.path)}", *self._options.fuse}
        if self._options.read_only:
            words.add("ro")
        session.mount(self._operations, self._mountpoint, words)
        try:
            self._own.find()
        except BaseException:
            session.close(unmount=True)
            raise
        self._pool.say_mounted(self._mountpoint, self._own.device)

    @property
    def failed(self) -> bool:
        """Whether not everything became durable, or a fault has ended the mount."""
        return self.broken or self._pool.commits.failed is not None

    async def run(self, ready_fd: int | None) -> None:
        """Serve the mount and the socket until the mount is gone.

        What leaves a task of this nursery ends all of them, so nothing does (docs/CONCURRENCY.md has the table).
        """
        async with trio.open_nursery() as nursery:
            self._operations.start_in(nursery)
            await nursery.start(self._service.committer.run)
            await nursery.start(self._server.run)
            self._pool.keep_reserve()
            await nursery.start(self._end_on_signals)
            nursery.start_soon(contained, "looking after the new mount", self._say_ready, ready_fd)
            nursery.start_soon(contained, "emptying the trash", empty_on_time, self._service)
            nursery.start_soon(contained, "watching limits", Watcher(self._service).run)
            nursery.start_soon(self._reporter.run)
            nursery.start_soon(self._policies.run)
            nursery.start_soon(Accountant(self._service).run)
            if await contained("serving the kernel", session.serve):
                self._gone = not self._left
            else:
                self.broken = True
            self._pool.say_mounted()
            self._tell("unmount")
            await self._settle()
            await contained("telling the journal", self._reporter.look)
            self._service.ending = True
            self._over.set()
            with trio.move_on_after(GOODBYE_S):
                await self._server.quiet()
            self._service.committer.stop()
            nursery.cancel_scope.cancel()

    def _tell(self, verb: str, text: str = "") -> None:
        if not self._pool.read_only:
            self._pool.catalog.events.add(verb, text=text)

    async def _say_ready(self, ready_fd: int | None) -> None:
        await contained("tuning the mount", trio.to_thread.run_sync, tune, self._own.device)
        extension.warn_if_missing()
        log.info("%s is mounted on %s", self._pool.path, self._mountpoint)
        await contained("looking back", self._reporter.look_back)
        self._tell("mount", "" if self._pool.was_clean else "after it was not unmounted in order")
        self.ready = True
        if ready_fd is not None:
            with contextlib.suppress(BrokenPipeError):  # who waited was killed; the mount is there all the same
                os.write(ready_fd, b"ready\n")
            os.close(ready_fd)

    async def _settle(self) -> None:
        try:
            await self._service.committer.commit()
        except RowfsError as error:  # logged already, and told by the exit code and umount's answer
            self._lost = self._lost or self._service.committer.waiting or str(error)

    async def _unmount(self, force: bool) -> None:
        """For the socket. Raises BusyError; StorageError when not everything became durable."""
        with trio.move_on_after(RESTING_S):
            await self._service.committer.ahead.rest()
        await run_apart(self._take_down, force)
        if force:
            session.terminate()
        else:
            await self._gone_elsewhere()
        await self._over.wait()
        why = self._pool.commits.failed or self._lost
        if why:
            raise StorageError(f"unmounted, but not everything could be made durable: {why}")

    async def _gone_elsewhere(self) -> None:
        """Wait until no other namespace has the mount. Raises BusyError where that takes long."""
        with trio.move_on_after(ELSEWHERE_S):
            await self._over.wait()
            return
        if others := await trio.to_thread.run_sync(holders_elsewhere, self._own.device):
            raise BusyError(
                f"{self._mountpoint} is unmounted here, but not in the mount namespaces of {', '.join(others)}: "
                f"the daemon, process {os.getpid()}, ends when they do, or when it is sent SIGTERM"
            )

    def _take_down(self, force: bool) -> None:
        if force:
            self._write_back()
        unmount(self._own, lazy=force)

    def _write_back(self) -> None:
        """What the kernel has cached reaches us before it is cut off. If it cannot, force is for just that."""
        try:
            session.write_back(self._mountpoint)
        except OSError as error:
            self._lost = f"what the kernel had cached could not be stored: {error.strerror}"
            log.error("unmounting by force, but %s", self._lost)

    async def _end_on_signals(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        with trio.open_signal_receiver(*ENDING) as signals:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING)
            task_status.started()
            async for number in signals:
                log.info("ending on %s", signal.Signals(number).name)
                await self._end()

    async def _end(self) -> None:
        try:
            await run_apart(self._take_down, True)
        except Exception as error:
            self._left = True
            foreseen = isinstance(error, RowfsError | OSError)
            log.warning("cannot unmount %s: %s", self._mountpoint, error, exc_info=not foreseen)
        session.terminate()

    def close(self) -> None:
        """The last commit; let go of the pool."""
        try:
            session.close(unmount=not self._gone)
        except Exception as fault:
            log_fault("ending the session with the kernel", fault)
        try:
            self._pool.close()
        except RowfsError as error:
            log.error("the last commit failed: %s", error)
            self._pool.commits.fail(str(error))
        except Exception as fault:
            log_fault("the last commit", fault)
            self._pool.commits.fail(f"unexpectedly: {fault!r}")
        log.info("%s is unmounted", self._pool.path)


def _ends_already(number: int, frame: FrameType | None) -> None:
    """A signal that ends a daemon, when that is at its end: nothing may interrupt the last commit."""


def _escaped(path: str) -> str:
    # pyfuse3 takes options in ASCII alone; libfuse splits them at commas, and takes backslashes for escapes; mtab has
    # lines. So as in a URL (cli.mounts reads it back).
    return quote(os.fsencode(path), safe=NAMED)


if __name__ == "__main__":
    sys.exit(main())
