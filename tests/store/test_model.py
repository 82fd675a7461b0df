"""Anything done in any order leaves what the oracle says, no finding of the checker, and not one block too many.

To search longer: ROWFS_EXAMPLES=5000 ROWFS_STEPS=200 python -m pytest tests/store/test_model.py
"""

from __future__ import annotations

from tests.store.machine_anything import AnythingMachine
from tests.store.machine_sharing import SharingMachine
from tests.store.machines import machine_settings

TestAnything = AnythingMachine.TestCase
TestAnything.settings = machine_settings(examples=300, steps=60)

TestSharing = SharingMachine.TestCase
TestSharing.settings = machine_settings(examples=400, steps=60)
