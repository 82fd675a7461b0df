"""A daemon whose clock is ahead and fast, makes each step of its policies durable, and kills itself at a commit.

clocked.py AHEAD_S COMMIT WHEN POOL MNT --ready-fd N     COMMIT 0: never; WHEN: before or after
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from typing import Any

from rowfs.process.daemon import main
from rowfs.service import hostclock, policies
from rowfs.service.policies import PolicyRunner
from rowfs.service.slices import Slices
from rowfs.store.commit import Batch, Commits

FASTER = 20  # a run that was cut off is tried again after a minute: 3 seconds
LOOK_S = 0.1


def change(ahead_s: float, commit: int, when: str) -> None:
    """Have this process be such a daemon."""
    begun_ns = time.time_ns()
    hostclock.now_ns = lambda: begun_ns + int(ahead_s * 1e9) + FASTER * (time.time_ns() - begun_ns)
    policies.LOOK_S = LOOK_S
    write, made = Commits.write, PolicyRunner.__init__
    numbers = itertools.count(1)
    runners: list[Any] = []

    def counted(commits: Commits, batch: Batch) -> None:
        number = next(numbers)
        if number == commit and when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        write(commits, batch)
        if number == commit:
            os.kill(os.getpid(), signal.SIGKILL)

    def noted(runner: PolicyRunner, service: Any) -> None:
        runners.append(service)
        made(runner, service)

    async def rest(slices: Slices) -> None:
        for service in runners:
            service.pool.catalog.touch_pool()
            await service.committer.commit(whole=True)

    Commits.write = counted  # type: ignore[method-assign]
    PolicyRunner.__init__ = noted  # type: ignore[method-assign]
    Slices.rest = rest  # type: ignore[method-assign]


if __name__ == "__main__":
    change(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    del sys.argv[1:4]
    sys.exit(main())
