"""What the fields of records may hold, and what stands for a value that they may not.

Ids, epochs and what else refers to other records has to be right, or the pool is damaged. What only describes (names,
times, owners, sizes, figures) keeps no pool from being opened: something stands for a value that cannot be, the nearest
that can where there is one. The engine works with that, `check` names it, and `check --repair` stores it.
"""

from __future__ import annotations

from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.names import DESCRIPTION_BYTES_MAX, check_description, check_name
from rowfs.base.times import TIME_NS_MAX, TIME_NS_MIN
from rowfs.base.units import CAPACITY_BYTES_MAX, DISK_BYTES_MAX

INT64 = (-(1 << 63), (1 << 63) - 1)
ID, NUMBER, TIME = (1, (1 << 32) - 1), (0, (1 << 32) - 1), (TIME_NS_MIN, TIME_NS_MAX)
BLOCKS = (0, (1 << 48) - 1)  # of figures; an address has 48 bits
RANGES = (
    dict.fromkeys(("id", "disk", "branch", "parent", "inode", "head", "policy"), ID)
    | dict.fromkeys(("epoch", "fork", "uid", "gid", "sealed"), NUMBER)
    | dict.fromkeys(("created_ns", "modified_ns", "changed_ns", "time_ns", "deleted_ns"), TIME)
    | dict.fromkeys(("mapped_blocks", "referenced_blocks", "written_blocks", "sealed_blocks"), BLOCKS)
    | {"next_id": (1, 1 << 32), "mode": (0, 0o7777), "until_ns": (0, TIME_NS_MAX)}
    | {"trash_keep_ns": (1, TIME_NS_MAX)}
    | dict.fromkeys(("snapshots", "limit_snapshots", "limit_disks"), NUMBER)
    | dict.fromkeys(("space_bytes", "reserve_bytes", "journal_bytes"), (0, INT64[1]))
    | {"limit_provisioned_percent": (1, 100_000)}
    | {"due_ns": (0, TIME_NS_MAX)}
    | dict.fromkeys(("clock_seen_ns", "clock_leapt_from_ns", "clock_leapt_to_ns"), (0, TIME_NS_MAX))
    | {"size_bytes": (0, DISK_BYTES_MAX), "capacity_bytes": (0, CAPACITY_BYTES_MAX)}
)

# What stands for a value that cannot be read at all. Who may read a disk is unknown then: only root. How large it was
# too: so large that all of it can be seen. `capacity_bytes`: what the host has.
STAND_INS: dict[str, Any] = (
    dict.fromkeys(("created_ns", "modified_ns", "changed_ns", "time_ns", "deleted_ns", "uid", "gid"), 0)
    | dict.fromkeys(("mapped_blocks", "referenced_blocks", "written_blocks", "sealed_blocks", "sealed"), 0)
    | {"size_bytes": DISK_BYTES_MAX, "mode": 0o600, "capacity_bytes": None, "clean": False}
    | {"name": "recovered-{id}", "kind": "user", "consistency": "crash", "description": ""}
    | {"hold": True, "until_ns": TIME_NS_MAX, "compliance": False, "reason": ""}  # of a lock: it keeps
    | {"trash_keep_ns": TIME_NS_MAX}  # nothing is deleted for good
    | dict.fromkeys(("snapshots", "limit_snapshots", "limit_disks", "limit_provisioned_percent", "space_bytes"))
    | {"reserve_bytes": 0, "limit_hook": None, "journal": None, "journal_bytes": 0}
    | {"policy": None, "due_ns": None, "failed": False}  # of a snapshot: nobody's, which no policy expires
    | dict.fromkeys(("clock_seen_ns", "clock_leapt_from_ns", "clock_leapt_to_ns"))  # no reading
)
_EXACT = {"mode", "uid", "gid", "policy"}  # the nearest to these is somebody else


def plain_check(name: str, wanted: str) -> tuple[type, int, int] | None:
    """What `check_field` comes to for most fields: an exact type, and of whole numbers the least and the most.

    None: it takes more. A pool with 20,000 snapshots has 400,000 fields to check when it is opened.
    """
    if name in ("name", "description") or wanted == "object" or wanted.startswith(("dict", "list")):
        return None
    least, most = RANGES.get(name, INT64)
    return (str if wanted.startswith("str") else bool if wanted == "bool" else int), least, most


def check_field(name: str, wanted: str, item: object) -> None:
    """Raises ValueError or UsageError unless a field, whose type is written `wanted`, may hold `item`."""
    if wanted == "object" or (item is None and wanted.endswith("None")):
        return
    if wanted.startswith("dict"):
        _check_items(name, item, int if wanted == "dict[str, int]" else str)
        return
    if wanted.startswith("list[str]"):
        if not isinstance(item, list) or not all(type(word) is str for word in item):
            raise ValueError(f"{name} is {item!r:.40}")
        return
    python_type = str if wanted.startswith("str") else bool if wanted == "bool" else int
    if type(item) is not python_type:
        raise ValueError(f"{name} is {item!r:.40}")
    if isinstance(item, int):
        least, most = RANGES.get(name, INT64)
        if not least <= item <= most:
            raise ValueError(f"{name} is {item!r:.40}")
    elif name == "name":
        check_name(str(item))
    elif name == "description":
        check_description(str(item))


def _check_items(name: str, items: object, kind: type) -> None:
    """Raises ValueError unless `items` is an object of texts, or of ids."""
    if not isinstance(items, dict) or not all(type(item) is kind for item in items.values()):
        raise ValueError(f"{name} is {items!r:.40}")
    if kind is int and not all(ID[0] <= item <= ID[1] for item in items.values()):
        raise ValueError(f"{name} has an id that is none")


def kept_field(name: str, wanted: str, item: object, number: object, wrong: list[str]) -> Any:
    """`item`, or what stands for it in the record with the id `number`; then `wrong` gets a line.

    Raises ValueError, UsageError for what nothing can stand for.
    """
    try:
        check_field(name, wanted, item)
    except (ValueError, UsageError) as error:
        if name not in STAND_INS:
            raise
        value = _nearest(name, item, number)
        wrong.append(f"{error}: {value!r:.60} stands for it")
        return value
    return item


def missing_field(name: str, number: object, wrong: list[str]) -> Any:
    """What stands for a field of STAND_INS that is not there, though it always is."""
    value = _nearest(name, None, number)
    wrong.append(f"it has no {name}: {value!r:.60} stands for it")
    return value


def _nearest(name: str, item: object, number: object) -> Any:
    if type(item) is int and name in RANGES and name not in _EXACT:
        least, most = RANGES[name]
        return min(max(item, least), most)
    if type(item) is str and name == "description":
        return item.encode(errors="surrogatepass")[:DESCRIPTION_BYTES_MAX].decode(errors="surrogateescape")
    value = STAND_INS[name]
    return value.format(id=number) if name == "name" else value
