"""The tools outside the package find what they import: no type checker looks at them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[2] / "tools"
MODULES = sorted(".".join(path.relative_to(TOOLS).with_suffix("").parts) for path in TOOLS.rglob("*.py"))


@pytest.mark.parametrize("module", MODULES)
def test_it_can_be_imported(module: str) -> None:
    importlib.import_module(module)
