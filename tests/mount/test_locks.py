"""A locked snapshot on a real mount: nothing deletes it, across a kill of the daemon too."""

from __future__ import annotations

from errno import EPERM
from pathlib import Path

import pytest

from tests.mount.helpers import Mounted


def test_nothing_deletes_a_locked_snapshot(mounted: Mounted) -> None:
    mounted.cli("create", ":vm", "1M")
    for name in "abc":
        mounted.cli("snapshot", f":vm@{name}")
    mounted.cli("lock", ":vm@b", "--reason", "audit")
    mounted.cli("lock", ":vm@c", "--until", "30d", "--compliance")
    mounted.kill()
    mounted.mount()
    for name in "bc":
        with pytest.raises(PermissionError) as caught:
            Path(mounted.snapshot_path("vm", name)).unlink()
        assert caught.value.errno == EPERM
    assert "vm@b is kept by a hold (audit)" in mounted.refuses("delete", ":vm@a..b")
    assert "the disk vm is not deleted" in mounted.refuses("delete", ":vm", "--snapshots", "delete")
    assert "nobody can release that before" in mounted.refuses("lock", "--release", ":vm@c")
    mounted.cli("lock", "--release", ":vm@b")
    Path(mounted.snapshot_path("vm", "b")).unlink()
    Path(mounted.path("vm")).unlink()
    assert sorted(path.name for path in Path(mounted.path(".snapshots/vm")).iterdir()) == ["a", "c"]
