"""Everybody who works on a pool until it crashes, and what has to be there afterwards."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rowfs.base.errors import RowfsError
from rowfs.cli.client import Client
from rowfs.store.check import check_pool
from rowfs.store.pool import init_pool
from soaklib.records import B, Lost, Names, Records, checksum, number_of, record
from soaklib.system import (
    DAEMON,
    DEADLINE_S,
    MIB,
    Daemon,
    Host,
    attach,
    detach,
    opened,
    read_direct,
    run,
    umount_whatever,
    until,
    write_aligned,
)

DISK_BYTES, EXT_BYTES, ROLLED_BYTES = 4 * MIB, 64 * MIB, MIB
RUN_S = (0.05, 1.5)  # between mount and crash
SNAPSHOTS_MAX, CLONES_MAX, FILES_MAX = 8, 3, 100
WRITERS = {"direct": os.O_DIRECT, "buffered": 0}
HUNG = "daemons hung after SIGKILL"


class Soak:
    """One pool, everything that was acknowledged, and those who change it."""

    def __init__(
        self,
        directory: Path,
        seed: int,
        *,
        host: str | None = None,
        run_s: tuple[float, float] = RUN_S,
        daemon: Sequence[str] = DAEMON,
    ) -> None:
        """In an empty directory. `host`: ext4 or xfs, a file system of its own for the pool, which crashes instead."""
        self.rng = random.Random(seed)
        self.host = Host(directory, host) if host else None
        self.crash_called = "host shutdowns" if host else "kills"
        self.pool = (self.host.where if self.host else directory) / "pool"
        self.mnt, self.ext = directory / "mnt", directory / "ext"
        for place in (self.mnt, self.ext):
            place.mkdir()
        self.run_s, self.command = run_s, daemon
        self.counts: Counter[str] = Counter()
        self.daemon: Daemon | None = None
        self.loop = ""
        self.records = {name: Records() for name in WRITERS}
        self.snapshots, self.clones = Names(), Names()
        self.rolled: list[bytes] = [bytes(ROLLED_BYTES)]  # what the rolled disk may hold, block by block
        self.rolled_at: dict[str, bytes] = {}  # its snapshots
        self.files: OrderedDict[str, bytes] = OrderedDict()
        self.made = itertools.count(1)  # names
        self.stopping = False
        self.threads: list[threading.Thread] = []
        self.errors: list[BaseException] = []

    # The daemon

    def start(self) -> None:
        """Make the pool and its disks, all of it durable."""
        init_pool(str(self.pool))
        self.mount()
        with Client(str(self.pool)) as client:
            for name in WRITERS:
                client.call("create", {"disk": name, "size_bytes": DISK_BYTES})
            client.call("create", {"disk": "rolled", "size_bytes": ROLLED_BYTES})
            client.call("create", {"disk": "ext", "size_bytes": EXT_BYTES})
        run("mkfs.ext4", "-q", "-F", self.mnt / "ext")
        self.attach()

    def mount(self) -> None:
        """Mount the pool."""
        self.daemon = Daemon(self.command, self.pool, self.mnt)

    def attach(self) -> None:
        """Mount the ext4."""
        self.loop = attach(self.mnt / "ext")
        run("mount", self.loop, self.ext)

    def detach(self) -> None:
        """Take the ext4 away, whether its disk still answers or not."""
        if os.path.ismount(self.ext):
            run("umount", self.ext)
        if self.loop:
            device, self.loop = self.loop, ""
            detach(device)

    def crash(self) -> None:
        """Shut the host down, if the pool has one of its own; then SIGKILL to the daemon."""
        daemon, self.daemon = self.daemon, None
        if daemon is None:
            return
        if self.host:
            self.host.shut_down()
        if not daemon.kill(self.mnt):
            self.counts[HUNG] += 1

    def clean(self) -> None:
        """Leave nothing mounted."""
        self.stopping = True
        for step in (self.crash, self.detach):
            with contextlib.suppress(Lost, OSError):
                step()
        umount_whatever("--lazy", self.ext, self.mnt)
        if self.host:
            self.host.remove()

    # A life of the daemon

    def life(self) -> None:
        """Everybody works until the crash; then all that was acknowledged has to be there."""
        self.work()
        time.sleep(self.rng.uniform(*self.run_s))
        self.crash()
        self.counts[self.crash_called] += 1
        self.stop()
        self.detach()
        run("umount", "--lazy", self.mnt)
        if self.host:
            self.host.remount()
        self.check()
        self.mount()
        self.verify()

    def work(self) -> None:
        """Everybody begins."""
        self.stopping = False
        writers = [(self._write_records, name, flags) for name, flags in WRITERS.items()]
        self.threads = [
            threading.Thread(target=self._work, args=(random.Random(self.rng.random()), *task), daemon=True)
            for task in (*writers, (self._write_files,), (self._keep,))
        ]
        for thread in self.threads:
            thread.start()

    def stop(self) -> None:
        """Everybody ends. Raises what went wrong for any of them while the daemon was there."""
        self.stopping = True
        for thread in self.threads:
            thread.join(DEADLINE_S)
            if thread.is_alive():
                raise Lost("a system call on the mount never returned")
        if self.errors:
            raise self.errors[0]

    def check(self) -> None:
        """Hold the pool against its invariants."""
        findings, _ = check_pool(str(self.pool))
        if findings:
            raise Lost("\n".join(map(str, findings)))

    def _work(self, rng: random.Random, task: Callable[..., None], *rest: Any) -> None:
        try:
            while not self.stopping:
                task(rng, *rest)
        except (OSError, RowfsError) as error:
            if self.daemon:  # nobody has killed it
                self.errors.append(error)
        except BaseException as error:
            self.errors.append(error)

    def _write_records(self, rng: random.Random, name: str, flags: int) -> None:
        disk = self.records[name]
        with opened(self.mnt / name, os.O_RDWR | flags) as fd:
            while not self.stopping:
                written = []
                for _ in range(rng.randint(1, 6)):
                    disk.number += 1
                    first, blocks = rng.randrange(DISK_BYTES // B - 4), rng.randint(1, 4)
                    for block in range(first, first + blocks):
                        disk.since[block].add(disk.number)
                        written.append((block, disk.number))
                    data = b"".join(record(name, block, disk.number) for block in range(first, first + blocks))
                    write_aligned(fd, first * B, data)
                if rng.random() < 0.8:
                    os.fsync(fd)
                    disk.synced(written)
                    self.counts["records"] += len(written)

    def _write_files(self, rng: random.Random) -> None:
        name, data = self._new_name("file"), rng.randbytes(rng.randint(1, 40000))
        with opened(self.ext / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as fd:
            os.write(fd, data)
            os.fsync(fd)
        with opened(self.ext, os.O_RDONLY) as directory:
            os.fsync(directory)
        self.files[name] = data
        self.counts["files"] += 1
        if len(self.files) > FILES_MAX:
            old, _ = self.files.popitem(last=False)
            os.unlink(self.ext / old)

    # Snapshots, clones, rollbacks

    def _keep(self, rng: random.Random) -> None:
        with Client(str(self.pool)) as client:
            while not self.stopping:
                tasks = (self._snapshot, self._snapshot, self._clone, self._copy, self._delete, self._roll)
                rng.choice(tasks)(rng, client)

    def _new_name(self, what: str) -> str:
        return f"{what}{next(self.made)}"

    def _snapshot(self, rng: random.Random, client: Client) -> None:
        if len(self.snapshots.sums) >= SNAPSHOTS_MAX:  # each takes some memory of the daemon, as it should
            self._delete(rng, client)
        disk, name = rng.choice(list(WRITERS)), self._new_name("s")
        before = dict(self.records[disk].acknowledged)
        self.snapshots.sums[disk, name] = None
        with self.snapshots.changing((disk, name)):
            client.call("snapshot", {"disk": disk, "snapshot": name})
        data = read_direct(self.mnt / ".snapshots" / disk / name)
        for block, number in before.items():
            if number_of(disk, block, data[block * B : (block + 1) * B]) < number:
                raise Lost(f"the snapshot {name} of {disk} lacks what was acknowledged before it, in block {block}")
        self.snapshots.sums[disk, name] = checksum(data)
        self.counts["snapshots"] += 1

    def _clone(self, rng: random.Random, client: Client) -> None:
        source = self.snapshots.any(rng)
        if source is None or len(self.clones.sums) >= CLONES_MAX:
            return
        name = self._new_name("clone")
        self.clones.sums[name, ""] = self.snapshots.sums[source]
        with self.clones.changing((name, "")):
            client.call("clone", {"disk": source[0], "snapshot": source[1], "targets": [name]})
        self.counts["clones"] += 1

    def _copy(self, rng: random.Random, client: Client) -> None:
        """A clone by other means: part by part, each shared."""
        source = self.snapshots.any(rng)
        if source is None or len(self.clones.sums) >= CLONES_MAX:
            return
        name = self._new_name("clone")
        self.clones.sums[name, ""] = None
        at, part = self.mnt / ".snapshots" / source[0] / source[1], B * rng.randint(1, DISK_BYTES // B - 1)
        with (
            self.clones.changing((name, "")),
            opened(at, os.O_RDONLY) as reader,
            opened(self.mnt / name, os.O_WRONLY | os.O_CREAT) as writer,
        ):
            while os.copy_file_range(reader, writer, part):
                pass
            os.fsync(writer)
        self.clones.sums[name, ""] = self.snapshots.sums[source]
        self.counts["copies"] += 1

    def _delete(self, rng: random.Random, client: Client) -> None:
        clone = self.clones.any(rng)
        if clone is not None and (len(self.clones.sums) >= CLONES_MAX or rng.random() < 0.2):
            with self.clones.changing(clone):
                client.call("delete", {"disk": clone[0]})
                del self.clones.sums[clone]
            self.counts["deletes"] += 1
        snapshot = self.snapshots.any(rng)
        if snapshot is not None and (len(self.snapshots.sums) >= SNAPSHOTS_MAX or rng.random() < 0.2):
            with self.snapshots.changing(snapshot):
                client.call("delete", {"disk": snapshot[0], "snapshots": [snapshot[1]]})
                del self.snapshots.sums[snapshot]
            self.counts["deletes"] += 1

    def _roll(self, rng: random.Random, client: Client) -> None:
        if len(self.rolled_at) < 3:
            self._fill_rolled(rng)
            name = self._new_name("r")
            client.call("snapshot", {"disk": "rolled", "snapshot": name})
            self.rolled_at[name] = self.rolled[-1]
        if rng.random() < 0.5:
            self._fill_rolled(rng)
        # The kernel tells the daemon of a close(2) when it likes.
        until(
            lambda: not client.call("list", {"disks": ["rolled"], "figures": False})[0]["open"], "the disk to be free"
        )
        name, data = rng.choice(list(self.rolled_at.items()))
        self.rolled.append(data)
        client.call("rollback", {"disk": "rolled", "snapshot": name, "discard": rng.random() < 0.5})
        self.rolled = self.rolled[-1:]
        self.counts["rollbacks"] += 1

    def _fill_rolled(self, rng: random.Random) -> None:
        data = rng.randbytes(B) * (ROLLED_BYTES // B)
        self.rolled.append(data)
        with opened(self.mnt / "rolled", os.O_WRONLY | os.O_DIRECT) as fd:
            write_aligned(fd, 0, data)
            os.fsync(fd)
        self.rolled = self.rolled[-1:]

    # What has to be there

    def verify(self) -> None:
        """Everything that was acknowledged, after a remount; then the ext4 is mounted again and its files looked at."""
        with Client(str(self.pool)) as client:
            disks = client.call("list", {"figures": False})
        chains = {item["name"]: item["snapshots"] for item in disks}
        if not {*WRITERS, "ext", "rolled"} <= chains.keys():
            raise Lost(f"disks: only {sorted(chains)} are left")
        self.snapshots.settle({(disk, snap["name"]) for disk in WRITERS for snap in chains[disk]}, "snapshots")
        self.clones.settle({(disk, "") for disk in chains.keys() - {*WRITERS, "ext", "rolled"}}, "disks")
        for name, records in self.records.items():
            records.verify(name, read_direct(self.mnt / name))
            self.counts["blocks verified"] += len(records.acknowledged)
        self._verify_sums(self.snapshots, lambda disk, name: self.mnt / ".snapshots" / disk / name, "snapshots")
        self._verify_sums(self.clones, lambda disk, name: self.mnt / disk, "clones")
        self._verify_rolled()
        self.attach()
        self._verify_files()

    def _verify_sums(self, names: Names, path: Callable[[str, str], Path], what: str) -> None:
        for key, right in names.sums.items():
            found = checksum(read_direct(path(*key)))
            if right is not None and found != right:
                raise Lost(f"{what}: {'@'.join(key)} has changed")
            names.sums[key] = found
            self.counts[f"{what} verified"] += 1

    def _verify_rolled(self) -> None:
        found = read_direct(self.mnt / "rolled")
        for start in range(0, ROLLED_BYTES, B):
            if not any(found[start : start + B] == choice[start : start + B] for choice in self.rolled):
                raise Lost(f"the rolled back disk holds at {start} what it never held")
        self.rolled = [found]
        for name, data in self.rolled_at.items():
            if read_direct(self.mnt / ".snapshots/rolled" / name) != data:
                raise Lost(f"the snapshot {name} of the rolled back disk has changed")
            self.counts["snapshots verified"] += 1

    def _verify_files(self) -> None:
        for name, data in self.files.items():
            path = self.ext / name
            if not path.exists() or path.read_bytes() != data:
                raise Lost(f"the file {name} in the ext4 is lost or has changed")
        self.counts["files verified"] += len(self.files)

    def finish(self) -> None:
        """Unmount in order: ext4 and pool are clean."""
        self.detach()
        run("e2fsck", "-f", "-n", self.mnt / "ext")
        with Client(str(self.pool)) as client:
            client.call("umount")
        daemon, self.daemon = self.daemon, None
        if daemon is not None and daemon.ended():
            raise Lost("the daemon did not end well")
        self.check()
