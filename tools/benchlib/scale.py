"""The snapshot service at scale: many disks, snapshots and policies in one pool, and who writes beside them."""

from __future__ import annotations

import gc
import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import trio

from benchlib.figures import SEED, Bench, child, environment, ms, say, timed, timing
from benchlib.fill import BLOCK, faults
from benchlib.mounted import Mount, can_mount, mounted, rowfs
from rowfs.base.times import now_ns
from rowfs.base.units import BLOCK_BYTES, MIB
from rowfs.rules.policies import Policy
from rowfs.rules.retention import Retention
from rowfs.rules.runs import Start
from rowfs.rules.schedules import parse_schedule
from rowfs.rules.selectors import Choice
from rowfs.rules.times import HOUR_NS
from rowfs.service.policies import PolicyRunner
from rowfs.service.policyrun import going
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.store.groups import MEMBERS_MAX
from rowfs.store.pool import Pool, init_pool

DISKS, CHAIN, POLICIES = 1000, 20, 50
APART_NS = 7 * HOUR_NS  # of one snapshot of a chain and the next
KEPT = Retention(last=5, hourly=6, daily=7, weekly=4, monthly=3)
PASS_MS_MAX, SLICE_MS_MAX = 50, 1.5
LIST_S_MAX, MOUNT_S_MAX, GROUP_MS_MAX, SLOWER_MAX = 1, 1, 20, 2


def run(bench: Bench) -> None:
    """All figures of this module."""
    say(f"{DISKS:,} disks of {CHAIN} snapshots, {POLICIES} policies")
    path = bench.directory / "scale"
    init_pool(str(path))
    pool = Pool(str(path))
    _fill(pool)
    trio.run(_pass, bench, pool)
    pool.close()
    opened = median(child("open_after_crash", pool=str(path))["open_s"] for _ in range(3))
    bench.note("opening the pool", f"{opened:.2f} s")
    if can_mount(bench):
        _mounted(bench, path)


def _fill(pool: Pool) -> None:
    """Each policy has the disks of a name, and all their snapshots, each of which has a block of its own."""
    now = now_ns()
    schedule = parse_schedule("1d", ["00:00"], "", None, "Europe/Berlin", now)
    policies = []
    for number in range(POLICIES):
        rule = Policy(
            id=0, name=f"policy-{number}", schedule=schedule, retention=KEPT, choice=Choice((f"of-{number}-*",))
        )
        policies.append(pool.policies.create(rule, now))
    for number in range(DISKS):
        policy = policies[number % POLICIES]
        disk = pool.create_disk(f"of-{number % POLICIES}-{number}", 16 * MIB)
        for place in range(CHAIN):
            due = now - (CHAIN - place) * APART_NS
            pool.write(disk, place * BLOCK_BYTES, BLOCK)
            start = Start(policy=policy.id, due_ns=due)
            pool.snapshot(disk, f"{policy.name}-{place:02}", created_ns=due, start=start)
        if number % 100 == 0:
            pool.commit()
    pool.commit()


# A pass


class Steps(trio.abc.Instrument):
    """Processor time of each step between two turns of the event loop, in seconds."""

    def __init__(self) -> None:
        self.steps_s: list[float] = []
        self._begun_s = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """One begins."""
        self._begun_s = time.thread_time()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """It ended."""
        self.steps_s.append(time.thread_time() - self._begun_s)


async def _pass(bench: Bench, pool: Pool) -> None:
    """Deciding what each policy does now, and which snapshots of each go: what all runs at midnight begin with."""
    gc.freeze()  # as the daemon does
    service = Service(pool, "/", lambda inode, attributes: None)
    runner = PolicyRunner(service)
    totals, longest = [], []
    for _ in range(bench.some(9, 5)):
        steps = Steps()
        trio.lowlevel.add_instrument(steps)
        await runner.look()
        slices = Slices()
        for policy in pool.policies.all.readable.values():
            await going(service, policy, now_ns(), service.clock.believed(), slices)
        trio.lowlevel.remove_instrument(steps)
        totals.append(sum(steps.steps_s))
        longest.append(quantiles(steps.steps_s, n=20)[-1])
    name = f"a pass over {POLICIES} policies with {DISKS * CHAIN:,} snapshots"
    bench.below(f"{name}: processor time", PASS_MS_MAX, ms(totals), "ms", totals_s=totals)
    bench.below("  of it in one turn of the event loop, 95 of 100", SLICE_MS_MAX, ms(longest), "ms")
    bench.note("  the first pass of all", f"{totals[0] * 1e3:.0f} ms")


# The mount


def _mounted(bench: Bench, path: Path) -> None:
    mounting: list[float] = []
    for _ in range(3):
        start = time.perf_counter()
        with mounted(path):
            mounting.append(time.perf_counter() - start)
    bench.below("rowfs mount of it, as a process", MOUNT_S_MAX, median(mounting), "s")
    with mounted(path) as mount:
        _list(bench, mount)
        _groups(bench, mount)
        _writers(bench, mount)
    pool = Pool(str(path))
    bench.below("faults that check finds afterwards", 1, faults(pool), "")
    pool.close()


def _list(bench: Bench, mount: Mount) -> None:
    say("everything listed")
    first = timed(lambda: mount.call("list"))
    again: list[float] = []
    for _ in range(3):
        with timing(again):
            found = mount.call("list")
    assert sum(len(disk["snapshots"]) for disk in found) == DISKS * CHAIN
    bench.below(f"list {DISKS:,} disks and {DISKS * CHAIN:,} snapshots, the first time", LIST_S_MAX, first, "s")
    bench.below("  again", LIST_S_MAX, median(again), "s")
    command = timed(lambda: rowfs("list", mount.point))
    policies = timed(lambda: mount.call("policy_list"))
    bench.note("  rowfs list as a process; policy list over the socket", f"{command:.2f} s; {policies:.2f} s")


def _groups(bench: Bench, mount: Mount) -> None:
    say(f"groups of {MEMBERS_MAX} disks")
    disks = [f"of-{number % POLICIES}-{number}" for number in range(MEMBERS_MAX)]
    taken: list[float] = []
    for _ in range(bench.some(15, 7)):
        with timing(taken):
            mount.call("group_snapshot", group="all", disks=disks)
        mount.call("group_delete", group="all")
    bench.below(f"group snapshot of {MEMBERS_MAX} disks, durable", GROUP_MS_MAX, ms(taken), "ms", taken_s=taken)


def _writers(bench: Bench, mount: Mount) -> None:
    """A disk of none of the policies is written while each of them runs: 20 snapshots, 20 that go, one commit."""
    say("a writer beside all policies")
    rowfs("create", mount.point / "written", "64M")
    names = [f"policy-{number}" for number in range(POLICIES)]
    seconds = bench.some(4, 2)
    alone, beside = [], []
    for _ in range(bench.some(5, 3)):
        alone.append(_written(mount, seconds, []))
        beside.append(_written(mount, seconds, names))
    slowest = {"alone": median(run["max_ms"] for run in alone), "beside": median(run["max_ms"] for run in beside)}
    runs = sum(run["runs"] for run in beside)
    name = f"slowest 4 KiB write of {seconds} s beside policies that run, to without"
    bench.below(name, SLOWER_MAX, slowest["beside"] / slowest["alone"], "x", alone=alone, beside=beside)
    shown = " and ".join(f"{value:.1f} ms {key}" for key, value in slowest.items())
    p99 = [median(run["p99_ms"] for run in found) for found in (alone, beside)]
    bench.note("  medians of them", f"{shown}; 99th percentile {p99[0]:.2f} and {p99[1]:.2f} ms; {runs} runs")


def _written(mount: Mount, seconds: int, policies: list[str]) -> dict[str, Any]:
    words = {"path": str(mount.point / "written"), "seconds": seconds, "seed": SEED}
    command = [sys.executable, "-m", "benchlib.child", "paced_writes", json.dumps(words)]
    runs = 0
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as writer:
        while writer.poll() is None:
            if policies:
                mount.call("policy_run", policy=policies[runs % len(policies)])
                runs += 1
            else:
                time.sleep(0.01)
        assert writer.stdout is not None
        found: dict[str, Any] = json.loads(writer.stdout.read())
    return found | {"runs": runs}
