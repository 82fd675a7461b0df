"""The snapshots that are shown, by id; and those of each policy, which need not look for them among all others."""

from __future__ import annotations

from collections.abc import Mapping

from rowfs.base.format import POLICY
from rowfs.store.model import Snapshot


class ShownSnapshots(dict[int, Snapshot]):
    """Snapshots by id. What is in the trash is not there."""

    def __init__(self) -> None:
        super().__init__()
        self._of_policy: dict[int, dict[int, Snapshot]] = {}

    def of_policy(self, number: int) -> Mapping[int, Snapshot]:
        """The snapshots that a policy has, by id, be it gone. A policy has what it took, never what it named."""
        return self._of_policy.get(number, {})

    def __setitem__(self, number: int, snapshot: Snapshot) -> None:
        super().__setitem__(number, snapshot)
        if (policy := policy_of(snapshot)) is not None:
            self._of_policy.setdefault(policy, {})[number] = snapshot

    def __delitem__(self, number: int) -> None:
        self.remove(self[number])

    def remove(self, snapshot: Snapshot) -> None:
        """It is not shown any more, if it was."""
        if super().pop(snapshot.id, None) is None or (policy := policy_of(snapshot)) is None:
            return
        own = self._of_policy[policy]
        del own[snapshot.id]
        if not own:
            del self._of_policy[policy]


def policy_of(snapshot: Snapshot) -> int | None:
    """The policy that may expire a snapshot; None: nobody's."""
    return snapshot.policy if snapshot.kind == POLICY else None
