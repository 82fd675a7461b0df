"""Sums of blocks that do not change any more: by address, kept in memory and in the map, held against what is read."""
