"""What `make bench-databases` has each system do: PostgreSQL, MariaDB, SQLite, a file tree, and QEMU's block layer."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchlib.dbsystems import Plain, Rowfs, System
from benchlib.ext4load import ROW
from benchlib.mounted import rowfs
from benchlib.peers import run
from prooflib.engines import MariaDb, Postgres, Server, missing, program

Values = dict[str, float]  # of a row: operations a second, more is better
PG_SCALE, MARIA_ROWS = 10, 20_000


def pgbench(system: System, seconds: float) -> Values:
    """Transactions a second of pgbench's own kind, with one client and with eight."""
    engine = Postgres(system.where, system.directory / "run-pg")
    with _running(engine, "pg"):
        where = ["-h", str(engine.run), "-U", "proof", "postgres"]
        if engine.ask("SELECT to_regclass('pgbench_accounts');") == [""]:
            _output(engine, "pgbench", "-i", "-q", "-s", str(PG_SCALE), *where)
        found = {}
        for clients in (1, 8):
            options = ["-n", "-c", str(clients), "-j", str(min(clients, 2)), "-T", str(max(1, round(seconds)))]
            with system.meanwhile():
                said = _output(engine, "pgbench", *options, *where)
            found[f"pgbench-{clients}"] = number_in(r"tps = ([\d.]+) \(without", said)
        return found


def sysbench(system: System, seconds: float) -> Values:
    """Transactions a second of sysbench's oltp_write_only on MariaDB, with one thread and with eight."""
    engine = MariaDb(system.where, system.directory / "run-maria")
    with _running(engine, "maria"):
        common = ["oltp_write_only", f"--mysql-socket={engine.run / 'socket'}", "--mysql-user=root"]
        common += ["--mysql-db=proof", "--tables=2", f"--table-size={MARIA_ROWS}"]
        if engine.ask("SHOW TABLES LIKE 'sbtest1';") == []:
            _output(engine, "sysbench", *common, "prepare")
        found = {}
        for threads in (1, 8):
            options = [f"--threads={threads}", f"--time={max(1, round(seconds))}", "--report-interval=0"]
            with system.meanwhile():
                said = _output(engine, "sysbench", *common, *options, "run")
            found[f"mariadb-{threads}"] = number_in(r"transactions:\s+\d+\s+\(([\d.]+) per sec", said)
        return found


@contextlib.contextmanager
def _running(engine: Server, directory: str) -> Iterator[None]:
    if (engine.where / directory).exists():
        engine.start()
    else:
        engine.create()
    try:
        yield
    finally:
        engine.stop()


def _output(engine: Server, name: str, *arguments: str) -> str:
    command = [program(name) or name, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd="/", timeout=600, **engine.account()
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip()[-500:]}")
    return done.stdout


def number_in(pattern: str, text: str) -> float:
    """The figure in what a program says. Raises RuntimeError when there is none."""
    found = re.search(pattern, text)
    if found is None:
        raise RuntimeError(f"no figure in {text[-500:]!r}")
    return float(found[1])


def sqlite(system: System, seconds: float) -> Values:
    """Inserts a second, each a durable transaction of its own, with a write-ahead log and with a rollback journal."""
    found = {}
    for key, mode in (("sqlite-wal", "WAL"), ("sqlite-rollback", "DELETE")):
        database = system.where / f"{key}.db"
        with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as connection, system.meanwhile():
            connection.execute(f"PRAGMA journal_mode={mode}")
            connection.execute("PRAGMA synchronous=FULL")
            connection.execute("CREATE TABLE IF NOT EXISTS t (id INTEGER PRIMARY KEY, a INTEGER, b TEXT)")
            began, inserts = time.monotonic(), 0
            while time.monotonic() < began + seconds:
                connection.execute("INSERT INTO t (a, b) VALUES (?, ?)", (inserts, ROW))
                inserts += 1
            found[key] = inserts / (time.monotonic() - began)
    return found


def tree(archive: Path, files: int) -> Callable[[System, float], Values]:
    """Files a second of an archive that is unpacked until all is durable."""

    def unpack(system: System, seconds: float) -> Values:
        target = system.where / "tree"
        target.mkdir()
        with system.meanwhile():
            began = time.monotonic()
            run("tar", "-xf", archive, "-C", target)
            run("sync", "-f", system.where)
            took = time.monotonic() - began
        shutil.rmtree(target)
        run("sync", "-f", system.where)
        return {"tree": files / took}

    return unpack


# QEMU's block layer, without a loop device


QEMU_MIB = 1024
QEMU_STEP = 8 * 4096  # so that neighbours are not written together


def qemu(directory: Path, systems: list[System], quick: bool) -> dict[str, Values]:
    """`qemu-img bench` on a plain raw file, QEMU's own qcow2 driver on a base, and rowfs: of each row, of each."""
    raw, base, overlay = (directory / f"qemu.{name}" for name in ("raw", "base", "qcow2"))
    ours = next((system for system in systems if type(system) is Rowfs), None)
    found: dict[str, Values] = {}
    targets: list[tuple[str, str, Path, Callable[[], None]]] = []
    for path in (raw, base):
        _fill(path)
    targets.append((Plain.key, "raw", raw, lambda: None))
    targets.append(("qcow2", "qcow2", overlay, lambda: _overlay(base, overlay)))
    if ours is not None:
        disk = ours.mount.point / "qemu"
        rowfs("create", disk, f"{QEMU_MIB}M")
        _fill(disk)
        targets.append((Rowfs.key, "raw", disk, lambda: ours.mount.call("snapshot", disk="qemu")))
    part = 4 if quick else 1
    for key, form, path, snapshot in targets:
        snapshot()
        rows = {
            "qemu-first": ["-w", "-c", str(20_000 // part), "--pattern=65"],
            "qemu-again": ["-w", "-c", str(20_000 // part), "--pattern=66"],
            "qemu-flush": ["-w", "-c", str(8_000 // part), "--pattern=67", "--flush-interval=16"],
            "qemu-zeros": ["-w", "-c", str(20_000 // part)],
            "qemu-read": ["-c", str(200_000 // part)],
        }
        for row, options in rows.items():
            count = int(options[options.index("-c") + 1])
            found.setdefault(row, {})[key] = count / _bench(form, path, options)
    for path in (raw, base, overlay):
        path.unlink(missing_ok=True)
    if ours is not None:
        ours.mount.call("delete", disk="qemu", all_snapshots=True, wait=True)
    return found


def _fill(path: Path) -> None:
    with open(path, "r+b" if path.exists() else "wb") as file:
        for _ in range(QEMU_MIB):
            file.write(b"q" * (1 << 20))


def _overlay(base: Path, overlay: Path) -> None:
    overlay.unlink(missing_ok=True)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay)


def _bench(form: str, path: Path, options: list[str]) -> float:
    command = ["qemu-img", "bench", "-f", form, "-t", "none", "-d", "16", "-s", "4096", "-S", str(QEMU_STEP), *options]
    said = subprocess.run([*command, str(path)], capture_output=True, text=True, check=True, timeout=300).stdout
    return number_in(r"Run completed in ([\d.]+) seconds", said)


def left_out() -> dict[str, str]:
    """Which groups cannot be measured here, and why."""
    reasons = {
        "postgresql": Postgres.obstacle() or missing("pgbench"),
        "mariadb": MariaDb.obstacle() or missing("sysbench"),
    }
    return {group: reason for group, reason in reasons.items() if reason}
