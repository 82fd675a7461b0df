"""tools/install: what it links where, and that root is not made to run what others can change."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.mount.helpers import ROOT

SOMEBODY = 4242  # a user
LINKS = {"usr/local/bin/rowfs": "rowfs", "sbin/mount.rowfs": "mount.rowfs", "sbin/mount.fuse.rowfs": "mount.rowfs"}


@pytest.fixture
def checkout() -> Iterator[Path]:
    """What tools/install finds of a checkout, in a directory that root alone can write, unlike /tmp."""
    place = Path(tempfile.mkdtemp(prefix="rowfs-install-", dir="/usr/local/lib"))
    try:
        made = place / "rowfs"
        for part in ("tools", "rowfs", ".venv/bin"):
            (made / part).mkdir(parents=True, mode=0o755)
        shutil.copy(ROOT / "tools/install", made / "tools")
        (made / "tools/setup").write_text("#!/bin/sh\ntouch tools/was-run\n")
        (made / "tools/setup").chmod(0o755)
        (made / "rowfs/code.py").touch(mode=0o644)
        (made / ".venv/bin/python").symlink_to("/bin/sh")
        for name in ("rowfs", "mount.rowfs"):
            (made / ".venv/bin" / name).touch(mode=0o755)
        yield made
    finally:
        shutil.rmtree(place)


def install(checkout: Path, destination: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", 'umask 022; exec "$0" "$@"', str(checkout / "tools/install"), *options],
        env=os.environ | {"DESTDIR": str(destination)},
        capture_output=True,
        text=True,
        check=False,
    )


def links(destination: Path) -> dict[str, str]:
    return {
        str(path.relative_to(destination)): os.readlink(path) for path in destination.rglob("*") if path.is_symlink()
    }


def test_it_links_what_root_alone_can_change_and_takes_that_away_again(checkout: Path, tmp_path: Path) -> None:
    wanted = {place: f"{checkout}/.venv/bin/{name}" for place, name in LINKS.items()}
    for _ in range(2):
        done = install(checkout, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        assert links(tmp_path) == wanted
    assert (checkout / "tools/was-run").exists()
    other = tmp_path / "sbin/mount.rowfs"
    other.unlink()
    other.symlink_to("/bin/true")
    assert "is there already, and not ours" in install(checkout, tmp_path).stderr
    assert install(checkout, tmp_path, "--remove").returncode == 0
    assert links(tmp_path) == {"sbin/mount.rowfs": "/bin/true"}


def of_another_user(path: Path) -> None:
    os.chown(path, SOMEBODY, -1)


def for_the_group(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o020)


def for_all(path: Path) -> None:
    path.chmod(path.stat().st_mode | 0o002)


@pytest.mark.parametrize("change", [of_another_user, for_the_group, for_all])
@pytest.mark.parametrize("part", ["", "..", "rowfs/code.py", ".venv", ".venv/bin/rowfs", "tools/setup"])
def test_what_others_can_change_is_refused_before_any_of_it_is_run(
    checkout: Path, tmp_path: Path, part: str, change: Callable[[Path], None]
) -> None:
    path = (checkout / part).resolve()
    change(path)
    done = install(checkout, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"install: others can change {path}, ") and done.stderr.count("\n") == 1
    assert links(tmp_path) == {} and not (checkout / "tools/was-run").exists()


def test_a_python_that_others_can_change_is_refused(checkout: Path, tmp_path: Path) -> None:
    python = tmp_path / "python"
    shutil.copy(os.path.realpath(sys.executable), python)
    of_another_user(python)
    (checkout / ".venv/bin/python").unlink()
    (checkout / ".venv/bin/python").symlink_to(python)
    assert f"others can change {python}" in install(checkout, tmp_path).stderr


def test_wrong_usage_is_told(checkout: Path, tmp_path: Path) -> None:
    assert install(checkout, tmp_path, "--frob").returncode == 2
    assert "usage: tools/install" in install(checkout, tmp_path, "--help").stdout
