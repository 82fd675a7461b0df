"""Floor 3: what takes more than one step of the engine: waits for kernel caches, commits, reclaim. No FUSE."""
