"""What the targets of the Makefile leave behind."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_clean_removes_what_was_built_and_keeps_the_pool_and_the_sources(tmp_path: Path) -> None:
    shutil.copy(ROOT / "Makefile", tmp_path)
    kept = ["pool/data", "rowfs/native/_native.c", "rowfs/native/extension.py", "tests/test_x.py", "tools/x"]
    gone = [".venv/bin/python", "build/x.o", "rowfs/native/_native.cpython-311-x86_64-linux-gnu.so"]
    gone += ["rowfs/persist/_verified.cpython-311-x86_64-linux-gnu.so"]
    gone += ["rowfs/__pycache__/x.pyc", ".ruff_cache/x", "rowfs.egg-info/x"]
    for name in kept + gone:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    subprocess.run(["make", "--silent", "clean"], cwd=tmp_path, check=True)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"Makefile", *kept}
