"""Floor 4: the engine on a mountpoint. FUSE, and no rules of its own."""

from rowfs.native import extension as extension  # first of all: it must be loaded before pyfuse3 is
