"""README.md's transcript is what happens, and tools/demo.py, which plays it, leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.mount.helpers import mounts

ROOT = Path(__file__).resolve().parents[2]

BEGINNING = """\
```console
$ rowfs init /srv/pool
/srv/pool: a pool now; mount it with rowfs mount /srv/pool DIR
$ mkdir /mnt/rowfs /mnt/vm1
$ rowfs mount /srv/pool /mnt/rowfs
/srv/pool: mounted on /mnt/rowfs
$ truncate -s 100M /mnt/rowfs/vm1
$ losetup --find --show /mnt/rowfs/vm1
/dev/loop7777
$ mkfs.ext4 -q /dev/loop7777
$ mount /dev/loop7777 /mnt/vm1
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where demo.py works in a test: nothing may be left there."""
    place = tmp_path / "work"
    place.mkdir()
    monkeypatch.setenv("TMPDIR", str(place))
    yield place
    assert list(place.iterdir()) == []


def start(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def play(*arguments: object) -> tuple[int, str]:
    process = start(*arguments)
    output, _ = process.communicate(timeout=300)
    return process.returncode, output


def test_the_transcript_is_what_happens(work: Path) -> None:
    code, output = play()
    assert code == 0, output
    assert output.splitlines()[-1].endswith("commands, all as written")


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (
            "$ stat -c %s /mnt/rowfs/vm1\n104857601\n",
            "line 13: not as written\nwritten: 104857601\ncame:    104857600\n",
        ),
        ("$ echo one\none\ntwo\n", "line 14: not as written\nwritten: two\ncame:    None\n"),
        ("$ echo one; echo two\none\n", "line 14: not as written\nwritten: None\ncame:    two\n"),
        ("$ cat /mnt/vm1/none 2>/dev/null\n", "line 12: the exit code is 1\n"),
        ("$ echo 'rowfs: done'\nrowfs: done\n", "line 12: the exit code is 0\n"),
    ],
)
def test_a_difference_is_named_by_its_line(tmp_path: Path, work: Path, step: str, says: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGINNING}{step}```\n")
    code, output = play(readme)
    assert code == 1
    assert output.endswith(f"\n{readme}: {says}"), output


def test_ended_in_the_middle_it_cleans_up(tmp_path: Path, work: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGINNING}$ sleep 200\n```\n")
    process = start(readme)
    deadline = time.monotonic() + 60
    while not any(place.endswith("/mnt/vm1") for place in mountpoints(work)):
        assert process.poll() is None and time.monotonic() < deadline, "it did not come to the middle"
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert mountpoints(work) == []


def mountpoints(below: Path) -> list[str]:
    """What is mounted below a directory."""
    return [line.mountpoint for line in mounts() if line.mountpoint.startswith(f"{below}/")]
