"""Floor 1: the files of a pool, one module each. No rules of snapshots here."""
