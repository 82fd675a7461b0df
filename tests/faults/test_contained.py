"""What becomes of a real daemon with a fault: the mount lives, or ends in order; the log has it all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.records import Lost
from soaklib.system import DAEMON, Daemon, alive, umount_whatever, until
from tests.mount.helpers import B, is_mounted, noise, read_file, write_file

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not os.path.exists("/dev/fuse"), reason="nothing can be mounted here"
)
DATA = noise("kept", 3 * B)


class Place:
    """A pool with a disk that holds something, and a mountpoint."""

    def __init__(self, path: Path) -> None:
        self.pool, self.mnt = path / "pool", path / "mnt"
        self.mnt.mkdir()
        init_pool(str(self.pool))

    def mount(self, how: str | None = None) -> Daemon:
        """Mount, with a daemon that has a fault."""
        command = (sys.executable, "-m", "tests.faults.faulty", how) if how else DAEMON
        daemon = Daemon(command, self.pool, self.mnt)
        if not os.path.exists(self.mnt / "vm"):
            os.close(os.open(self.mnt / "vm", os.O_CREAT))
            os.truncate(self.mnt / "vm", len(DATA))
        return daemon

    def call(self, method: str) -> object:
        """Ask the daemon."""
        with Client(str(self.pool)) as client:
            return client.call(method)

    @property
    def log(self) -> str:
        """What the daemon has logged."""
        return (self.pool / "rowfs.log").read_text()

    def end(self, daemon: Daemon, code: int = 0) -> None:
        """SIGTERM; then everything is in order."""
        os.kill(daemon.pid, signal.SIGTERM)
        self.ended(daemon, code)

    def ended(self, daemon: Daemon, code: int) -> None:
        """The daemon has ended in order: unmounted, everything durable."""
        assert daemon.ended() == code
        assert not is_mounted(self.mnt)
        assert check_pool(str(self.pool))[0] == []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    umount_whatever("--lazy", made.mnt)


def goes_on(place: Place, how: str, provoke: Callable[[], object] = lambda: None) -> str:
    """Mount, provoke the fault, and go on; the log."""
    daemon = place.mount(how)
    provoke()
    until(lambda: "Fault" in place.log, "the log")
    write_file(str(place.mnt / "vm"), DATA, sync=True)
    assert alive(daemon.pid) and isinstance(place.call("list"), list)
    place.end(daemon)
    return place.log


def test_what_opening_finds_is_in_the_log(place: Place) -> None:
    assert "WARNING rowfs: found while opening: Fault" in goes_on(place, "opening")


def test_a_fault_in_a_method_is_that_requests_alone(place: Place) -> None:
    def ask() -> None:
        with pytest.raises(RowfsError, match="unexpectedly"):
            place.call("info")

    assert "Traceback" in goes_on(place, "a-method", ask)


def test_a_fault_while_accepting_ends_no_mount(place: Place) -> None:
    log = goes_on(place, "accepting", lambda: place.call("info"))
    assert "accepting clients failed unexpectedly\nTraceback" in log


def test_a_fault_while_tuning_ends_no_mount(place: Place) -> None:
    assert "tuning the mount failed unexpectedly\nTraceback" in goes_on(place, "tuning")


def test_a_fault_in_a_thread_and_what_c_code_says_are_in_the_log(place: Place) -> None:
    log = goes_on(place, "a-thread", lambda: place.call("info"))
    assert "the thread some failed unexpectedly\nTraceback" in log
    assert "said in C: Fault\n" in goes_on(place, "c-code", lambda: place.call("info"))


def test_a_signal_that_ends_the_daemon_is_in_the_log_with_where_it_was(place: Place) -> None:
    daemon = place.mount("memory")
    write_file(str(place.mnt / "vm"), DATA, sync=True)
    with pytest.raises(RowfsError, match="ended before it answered"):
        place.call("info")
    assert daemon.ended() == -signal.SIGSEGV
    assert "Fatal Python error: Segmentation fault" in place.log and "in info" in place.log
    umount_whatever("--lazy", place.mnt)
    assert check_pool(str(place.pool))[0] == []


def test_a_fault_past_the_handlers_ends_the_mount_in_order(place: Place) -> None:
    daemon = place.mount("a-handler-lets-it-out")
    write_file(str(place.mnt / "vm"), DATA)
    os.sync()
    with pytest.raises(OSError):
        os.statvfs(place.mnt)
    place.ended(daemon, 1)
    assert "serving the kernel failed unexpectedly\nTraceback" in place.log and "is unmounted" in place.log
    again = place.mount()
    assert read_file(str(place.mnt / "vm")) == DATA
    place.end(again)


def test_a_mount_that_cannot_begin_is_one_line_and_leaves_nothing(place: Place) -> None:
    with pytest.raises(Lost, match="error: a fault in rowfs itself: Fault"):
        place.mount("the-socket")
    assert not is_mounted(place.mnt) and "Traceback" in place.log
    place.end(place.mount())


def test_whoever_waits_for_the_mount_may_be_killed(place: Place) -> None:
    read_fd, write_fd = os.pipe()
    os.close(read_fd)
    os.set_inheritable(write_fd, True)
    command = [*DAEMON, str(place.pool), str(place.mnt), "--ready-fd", str(write_fd)]
    pid = os.spawnv(os.P_NOWAIT, command[0], command)
    os.close(write_fd)
    until(lambda: is_mounted(place.mnt) and (place.pool / "control.sock").exists(), "the mount")
    until(lambda: "is mounted on" in place.log, "the log")
    assert place.call("list") == [] and "Traceback" not in place.log
    os.kill(pid, signal.SIGTERM)
    assert os.waitpid(pid, 0)[1] == 0 and not is_mounted(place.mnt)


def test_a_signal_while_a_daemon_starts_leaves_no_dead_mount(place: Place) -> None:
    for delay_s in (0.0, 0.1, 0.2, 0.3, 0.4):
        pid = os.spawnv(os.P_NOWAIT, DAEMON[0], [*DAEMON, str(place.pool), str(place.mnt)])
        with pytest.raises(Lost):
            until(lambda pid=pid: not alive(pid), "nothing", delay_s)  # type: ignore[misc]
        os.kill(pid, signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] in (0, signal.SIGTERM)
        assert not is_mounted(place.mnt)


def test_ctrl_c_at_any_moment_of_a_mount_in_the_foreground_leaves_nothing_and_shows_no_traceback(place: Place) -> None:
    command = [str(Path(sys.executable).parent / "rowfs"), "mount", "-f", str(place.pool), str(place.mnt)]
    for step in range(8):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        with pytest.raises(Lost):
            until(lambda process=process: process.poll() is not None, "nothing", 0.1 * step)  # type: ignore[misc]
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
        assert process.returncode in (0, 130, -signal.SIGINT), said
        assert "Traceback" not in said and not is_mounted(place.mnt)
