"""The table of consistency groups: which there are, and which snapshots are their members.

A name is a group's alone. A snapshot is a member of one group at most, and of that for good: a group loses members when
they are deleted, and goes with the last one.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import partial

from rowfs.base.errors import CorruptionError, NotFoundError
from rowfs.base.format import GROUPS, GroupRecord
from rowfs.persist.mapread import Reader
from rowfs.store.records import Records, told


class GroupTable(Records[GroupRecord]):
    """The groups of one pool."""

    def __init__(self) -> None:
        super().__init__(GROUPS, partial(told, GroupRecord))
        self._by_name: dict[str, GroupRecord] = {}
        self._by_member: dict[int, GroupRecord] = {}

    def load_all(self, reader: Reader, next_id: int, snapshots: Container[int]) -> None:
        """Read all groups, and drop those that no snapshot is left of. Raises CorruptionError."""
        self.load(reader, next_id)
        members: set[int] = set()
        for group in list(self):
            if group.name in self._by_name:
                raise CorruptionError(f"there are two groups {group.name}")
            if not members.isdisjoint(group.members.values()):
                raise CorruptionError(f"a snapshot of the group {group.name} is in another one, too")
            members.update(group.members.values())
            left = [number for number in group.members.values() if number in snapshots]
            self._index(group, left)
            if not left:
                self.disband(group)

    def _index(self, group: GroupRecord, left: Iterable[int]) -> None:
        self._by_name[group.name] = group
        self._by_member.update(dict.fromkeys(left, group))

    def named(self, name: str) -> GroupRecord | None:
        """The group of that name, if there is one."""
        return self._by_name.get(name)

    def find(self, name: str, number: int | None = None) -> GroupRecord:
        """The group of that name. Raises NotFoundError: there is none, or it has another id than `number`."""
        group = self._by_name.get(name)
        if group is None:
            raise NotFoundError(f"there is no group {name}: rowfs group list shows those there are")
        if number is not None and group.id != number:
            raise NotFoundError(f"the group {name} has the id {group.id}, not {number}: it was made anew since")
        return group

    def of(self, snapshot: int) -> GroupRecord | None:
        """The group that the snapshot with this id is a member of."""
        return self._by_member.get(snapshot)

    def add(self, group: GroupRecord) -> None:
        """A new group."""
        assert group.name not in self._by_name, "a group is made twice"
        self._index(group, group.members.values())
        self.put(group)

    def disband(self, group: GroupRecord) -> None:
        """Forget a group; its snapshots stay."""
        del self._by_name[group.name]
        for number in group.members.values():
            self._by_member.pop(number, None)
        self.drop(group.id)

    def regain(self, snapshot: int) -> None:
        """A snapshot is back from the trash: in its group, if that is still there."""
        group = next((group for group in self if snapshot in group.members.values()), None)
        if group is not None:
            self._by_member[snapshot] = group

    def lose(self, snapshot: int) -> None:
        """A snapshot is deleted: the group of which it was the last one goes."""
        group = self._by_member.pop(snapshot, None)
        if group is not None and not any(number in self._by_member for number in group.members.values()):
            self.disband(group)
