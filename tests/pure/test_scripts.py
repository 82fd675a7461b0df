"""The shell scripts that start the programs."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.mark.parametrize("name", ["rowfs", "mount.rowfs"])
def test_a_python_that_cannot_be_run_is_named_and_no_other_is_tried(tmp_path: Path, name: str) -> None:
    shutil.copy(SCRIPTS / name, tmp_path / name)
    (tmp_path / "python3").symlink_to(tmp_path / "hidden")
    done = subprocess.run([tmp_path / name, "--help"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"rowfs: {tmp_path}/python3 may not be run") and done.stderr.count("\n") == 1
