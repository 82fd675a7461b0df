"""Floor 4: the command line. It asks the daemon over its socket and adds no rules of its own.

Start-up is quick on purpose: nothing here may import numpy, lmdb, trio or pyfuse3 while it is itself imported.
"""
