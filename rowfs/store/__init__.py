"""Floor 2: the engine. Pool, disks, snapshots and the rules that keep them. A plain synchronous library."""
