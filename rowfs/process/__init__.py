"""Floor 4: the daemon's process."""
