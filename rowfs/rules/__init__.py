"""Rules of the snapshot service: pure functions on values. Time is an argument; nothing here does I/O or waits."""
