"""Floor 3: the engine on a mountpoint and on a socket. trio and pyfuse3, and no rules of its own."""

from rowfs.mount import native as native  # first of all: it must be loaded before pyfuse3 is
