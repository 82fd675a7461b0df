"""What holds for every level of tests: no skip goes unnoticed in CI, and nothing stays mounted."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rowfs.base.mountinfo import parse

NO_SKIPS = os.environ.get("ROWFS_NO_SKIPS") == "1"


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    """Turn a skip into a failure that gives its reason. An expected failure (xfail) is none."""
    if not NO_SKIPS or not report.skipped or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
    report.outcome = "failed"
    report.longrepr = f"ROWFS_NO_SKIPS=1, yet {report.nodeid} was skipped. {reason}"


def _in_utf8(report: pytest.TestReport) -> None:
    """Escape what is no UTF-8, in names: a process of xdist cannot send it, and one failure would end the whole run."""
    try:
        str(report.longrepr).encode()
    except UnicodeEncodeError:
        report.longrepr = _escaped(str(report.longrepr))
    report.sections = [(title, _escaped(text)) for title, text in report.sections]


def _escaped(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Iterator[None]:
    report = yield
    _fail_if_skipped(report)
    _in_utf8(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Iterator[None]:
    report = yield
    _fail_if_skipped(report)
    return report


@pytest.fixture(scope="session", autouse=True)
def _nothing_is_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the run when a mount or a loop device of these tests is still there after the last of them.

    All that a test or a program that it starts makes lies below one directory, which this run made: so what was mounted
    before, or is mounted meanwhile by others, is told apart.
    """
    base = tmp_path_factory.getbasetemp().resolve()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(base))
        patch.setattr(tempfile, "tempdir", None)  # makes tempfile look at TMPDIR again
        yield
    left = sorted(_mounts(base) | _loops(base))
    if left:
        pytest.fail("left behind by these tests:\n" + "\n".join(left), pytrace=False)


def _mounts(base: Path) -> set[str]:
    """Every mount, of any type, whose mountpoint or source (a pool, a loop's image) lies below `base`."""
    return {
        f"{mount.fs_type} {mount.source} on {mount.mountpoint}"
        for mount in parse(Path("/proc/self/mountinfo").read_bytes())
        if _below(mount.source, base) or _below(mount.mountpoint, base)
    }


def _loops(base: Path) -> set[str]:
    """Every loop device whose backing file lies, or lay, below `base`."""
    backing = {}
    for file in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):  # detached meanwhile, by other tests
            backing[file.parts[3]] = os.fsdecode(file.read_bytes().removesuffix(b"\n"))
    return {f"/dev/{device} of {path}" for device, path in backing.items() if _below(path, base)}


def _below(path: str, base: Path) -> bool:
    return path.startswith(f"{base}/")


def pytest_configure() -> None:
    """A shell's background job ignores Ctrl-C, and so would what it starts: tests send it and expect an answer."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
