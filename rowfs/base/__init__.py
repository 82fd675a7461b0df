"""Floor 0: words, numbers and codes. Nothing here does I/O."""
