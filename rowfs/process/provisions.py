"""What a daemon has in store before it begins, so that nothing it does later fails for want of it.

A module that is imported when it is first needed may be needed by a commit, and need a descriptor that is not there.
"""

from __future__ import annotations

import resource
from importlib import import_module

# What libraries import while they work. tests/faults/test_torment.py fails for one that is missing here.
IMPORTS = ("encodings.unicode_escape", "importlib.readers", "numpy.ma")
DESCRIPTORS = 4096  # at least, where the system lets us: control/server.py bounds what clients can take of them


def lay_in() -> None:
    """Import what will be needed, and have as many descriptors as may be."""
    for name in IMPORTS:
        import_module(name)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < DESCRIPTORS:
        most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
