"""The transcript in docs/LINUX.md is what happens."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.mount.linux import need

ROOT = Path(__file__).resolve().parents[2]


def test_the_transcript_is_what_happens() -> None:
    need("qemu-img", "qemu-io", "mkfs.ext4")
    command = [sys.executable, str(ROOT / "tools" / "demo.py"), str(ROOT / "docs" / "LINUX.md")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
