"""Which inode numbers the files of a mount have: the kernel caches by them, and loop devices are told by them.

    1           the mountpoint
    2           .snapshots
    4 n         a disk's file; n is the id of this life of its name, so a disk made anew has another inode
    4 n + 1     .snapshots/DISK; n is the disk's id
    4 n + 2     a snapshot's file; n is its id

Ids are never used twice, so neither are inodes.
"""

from __future__ import annotations

ROOT, SNAPSHOTS = 1, 2  # FUSE_ROOT_ID of linux/fuse.h
_DISK, _CHAIN, _SNAPSHOT = 0, 1, 2


def disk_inode(life: int) -> int:
    """The number of a disk's file."""
    return 4 * life + _DISK


def chain_inode(disk: int) -> int:
    """The number of the directory of a disk's snapshots, by the disk's id."""
    return 4 * disk + _CHAIN


def snapshot_inode(snapshot: int) -> int:
    """The number of a snapshot's file, by its id."""
    return 4 * snapshot + _SNAPSHOT
