"""One round: a mounted pool whose block map is damaged while the script runs."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from pathlib import Path

from rowfs.store.pool import Pool, init_pool
from soaklib.records import B, Lost
from soaklib.system import DAEMON
from tormentlib.mapdamage import Done, damage
from tormentlib.model import Image, Model, block_of
from tormentlib.rounds import Outcome, Rounds

DISKS, LONG_DISKS = 24, 4
BLOCKS, LONG_BLOCKS = 16, 512  # of a disk; of one with a page version that needs a page of LMDB's for itself
CHANGING_STEPS, STEPS = 40, 150  # of the script: until it reads each disk, in all
LATE_S = 0.02  # after a step began
MAP = "map/data.mdb"
ROUND_S = 180.0  # a machine that is busy with other things is no daemon that hangs


class MapRounds(Rounds):
    """Rounds in one directory."""

    def __init__(self, directory: Path, fresh: Path, begin: Model, command: Sequence[str] = DAEMON) -> None:
        super().__init__(directory, directory / "nothing", fresh, begin, command)
        self.options = ("-o", "cache=1M")
        self.round_s = ROUND_S
        self.done: Done | None = None

    def torment(self, seed: int) -> tuple[str, Outcome]:
        """One round. What was damaged, and how it ended. Raises Lost when anything is wrong that must not be."""
        rng, steps = random.Random(seed), 0
        when, late = rng.randrange(rng.choice((CHANGING_STEPS, STEPS))), rng.choice((None, rng.random() * LATE_S))
        self.done = None
        timers: list[threading.Timer] = []

        def on_step() -> None:
            nonlocal steps
            steps += 1
            if steps - 1 == when:
                timers.append(threading.Timer(late or 0, self._damage, [rng]))
                timers[0].start()
                if late is None:
                    timers[0].join()

        def begun(model: Model) -> None:
            model.on_step = on_step

        def ended() -> None:
            for timer in timers:
                timer.join()
            if self.done is not None:
                self.done.undo(self._pool / MAP)

        try:
            outcome = self.round({}, begun, ended)
        except Exception as error:
            raise Lost(
                f"seed {seed}, {self._what()} at step {when}{'' if late is None else ' or so'}: {error}"
            ) from error
        return self._what(), outcome

    def _what(self) -> str:
        return "nothing" if self.done is None else self.done.what

    def _damage(self, rng: random.Random) -> None:
        self.done = damage(rng, self._pool / MAP)

    @property
    def noticed(self) -> bool:
        """Whether the daemon of the last round saw that something was damaged."""
        return any("damaged and read-only" in line for line in self._log())


def full_pool(path: Path) -> Model:
    """Make a pool whose map has pages of all kinds. What it holds."""
    init_pool(str(path))
    model, pool = Model(), Pool(str(path))
    for index in range(DISKS + LONG_DISKS):
        name, blocks = f"d{index}", BLOCKS if index < DISKS else LONG_BLOCKS
        image = model.disks[name] = Image({blocks * B})
        disk = pool.create_disk(name, blocks * B)
        for first in (0, 1):
            for block in range(first, blocks, 2 + first):
                number = 1 + first * LONG_BLOCKS + block
                pool.write(disk, block * B, block_of(block, number))
                image.put(block, {number}, True)
            image.synced()
            if not first:
                pool.snapshot(disk, "s")
                model.snapshots[name, "s"] = Image({blocks * B}, dict(image.live), dict(image.live))
                if index % 8 == 0:
                    pool.commit()
    pool.close()
    return model
