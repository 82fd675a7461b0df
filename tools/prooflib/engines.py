"""The databases of the proof: how each is made, started, killed, asked, and held against its own checks.

All speak the same: a client is a process that takes SQL on its standard input and prints what it is told to, so that
`ack 7` is on its output when the seventh transaction is committed, and not before.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from glob import glob
from pathlib import Path
from typing import ClassVar

from soaklib.records import Lost
from soaklib.system import MIB, until

START_S = 120.0  # recovery included
ACCOUNTS, BALANCE = 100, 1000
FILLER = "f" * 300  # so that the database grows, and commits need new blocks


class Engine(ABC):
    """One database: its files in the directory `where`, its sockets in `run`."""

    name: ClassVar[str]
    disk_bytes: ClassVar[int]
    clients: ClassVar[int]
    begin: ClassVar[str] = "BEGIN;"

    def __init__(self, where: Path, run: Path) -> None:
        self.where = where
        self.run = run

    @classmethod
    @abstractmethod
    def obstacle(cls) -> str:
        """Why it cannot run here; empty if it can."""

    @abstractmethod
    def create(self) -> None:
        """Make an empty database, and start it."""

    @abstractmethod
    def start(self) -> None:
        """Start it, after whatever happened to its files; it recovers. Raises Lost when it does not."""

    @abstractmethod
    def kill(self) -> None:
        """End all of its processes, as a crash would."""

    @abstractmethod
    def client(self) -> list[str]:
        """The command of a client."""

    @abstractmethod
    def ack(self, number: int) -> str:
        """What has a client print `ack NUMBER`."""

    @abstractmethod
    def check(self) -> None:
        """Hold it against its own checks, and end it in order. Raises Lost."""

    def account(self) -> dict[str, int]:
        """The user that it runs as, as subprocess takes it."""
        return {}

    def fill(self) -> None:
        """Make the tables."""
        rows = ", ".join(f"({number}, {BALANCE})" for number in range(ACCOUNTS))
        self.ask(
            "CREATE TABLE accounts (id INTEGER PRIMARY KEY, balance INTEGER);"
            "CREATE TABLE commits (client INTEGER, n INTEGER, filler TEXT, PRIMARY KEY (client, n));"
            "CREATE INDEX by_number ON commits (n);"
            f"INSERT INTO accounts VALUES {rows};"
        )

    def transfer(self, client: int, number: int, first: int, second: int, amount: int) -> str:
        """One transaction: some of one account's balance goes to another, and who did that is noted."""
        return (
            f"{self.begin} UPDATE accounts SET balance = balance - {amount} WHERE id = {first}; "
            f"UPDATE accounts SET balance = balance + {amount} WHERE id = {second}; "
            f"INSERT INTO commits VALUES ({client}, {number}, '{FILLER}'); COMMIT; {self.ack(number)}"
        )

    def ask(self, sql: str) -> list[str]:
        """The lines of an answer. Raises Lost."""
        done = subprocess.run(
            self.client(), input=sql + "\n", capture_output=True, text=True, check=False, timeout=120, **self.account()
        )
        if done.returncode:
            raise Lost(f"{self.name}: {sql[:200]}: {done.stderr.strip()}")
        return done.stdout.split("\n")[:-1]

    def verify(self, acknowledged: list[int]) -> None:
        """Start it; balances have to agree, and of each client all transactions be there, up to what is `acknowledged`.

        Raises Lost.
        """
        self.start()
        total = self.ask("SELECT sum(balance) FROM accounts;")
        if total != [str(ACCOUNTS * BALANCE)]:
            raise Lost(f"{self.name}: the balances come to {total}")
        rows = self.ask("SELECT client || ' ' || count(*) || ' ' || max(n) FROM commits GROUP BY client;")
        found = {int(client): (int(count), int(last)) for client, count, last in (row.split() for row in rows)}
        for client, last_acknowledged in enumerate(acknowledged):
            count, last = found.get(client, (0, 0))
            if count != last or last < last_acknowledged:
                raise Lost(
                    f"{self.name}: of client {client} there are {count} commits, the last {last}, "
                    f"and {last_acknowledged} were acknowledged"
                )
        self.check()


def program(*names: str) -> str | None:
    """Where the first of these programs is."""
    for name in names:
        places = sorted(glob(f"/usr/lib/postgresql/*/bin/{name}"), reverse=True)
        if found := shutil.which(name) or next(iter(places), None) or shutil.which(name, path="/usr/sbin:/sbin"):
            return found
    return None


def missing(*names: str) -> str:
    """Which of these programs are not there, as a line; empty: none."""
    absent = [name for name in names if program(name) is None]
    return f"no {', '.join(absent)} (tools/setup --bench installs them)" if absent else ""


class Sqlite(Engine):
    """SQLite with a write-ahead log."""

    name = "sqlite"
    disk_bytes = 64 * MIB
    clients = 1
    begin = "BEGIN IMMEDIATE;"
    mode: ClassVar[str] = "WAL"

    @classmethod
    def obstacle(cls) -> str:
        return ""

    def create(self) -> None:
        self.fill()

    def start(self) -> None:
        """Nothing runs."""

    def kill(self) -> None:
        """Nothing runs but the clients."""

    def client(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name("sqlite_client.py")), str(self.where / "db"), self.mode]

    def ack(self, number: int) -> str:
        return f"SELECT 'ack {number}';"

    def check(self) -> None:
        found = self.ask("PRAGMA integrity_check;")
        if found != ["ok"]:
            raise Lost(f"{self.name}: {found}")


class SqliteRollback(Sqlite):
    """SQLite with a rollback journal."""

    name = "sqlite-rollback"
    mode = "DELETE"


class Server(Engine):
    """A database that is a process."""

    user: ClassVar[str]
    ends_by: ClassVar[int] = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = None

    def account(self) -> dict[str, int]:
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid}

    def _own(self, *places: Path) -> None:
        for place in places:
            place.mkdir(exist_ok=True)
            os.chown(place, self.account()["user"], self.account()["group"])

    def _do(self, *words: str | Path) -> None:
        command = [str(word) for word in words]
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=300, cwd="/", **self.account()
        )
        if done.returncode:
            raise Lost(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")

    def _launch(self, *words: str | Path) -> None:
        self._own(self.run)
        with open(self.run / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                start_new_session=True,
                **self.account(),
            )
        until(self._answers, f"{self.name} to start; its log is {self.run / 'log'}", START_S)

    def _answers(self) -> bool:
        if self._process is None or self._process.poll() is not None:
            raise Lost(f"{self.name} does not start: {(self.run / 'log').read_text(errors='replace')[-2000:]}")
        try:
            return self.ask("SELECT 1;") == ["1"]
        except Lost:
            return False

    def _end(self, number: int) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(number)
            process.wait(START_S)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(self.ends_by)


class Postgres(Server):
    """PostgreSQL with data checksums."""

    name = "postgresql"
    user = "postgres"
    ends_by = signal.SIGINT  # without waiting for clients
    disk_bytes = 768 * MIB
    clients = 4
    settings: ClassVar[dict[str, str]] = {
        "listen_addresses": "",
        "shared_buffers": "32MB",
        "max_wal_size": "64MB",
        "checkpoint_timeout": "30s",
    }

    @classmethod
    def obstacle(cls) -> str:
        return missing("postgres", "initdb", "psql", "pg_amcheck", "pg_checksums")

    def create(self) -> None:
        self._own(self.where / "pg", self.run)
        self._do(_found("initdb"), "-D", self.where / "pg", "-U", "proof", "-A", "trust", "--data-checksums")
        self.start()
        self.ask("CREATE EXTENSION amcheck;")
        self.fill()

    def start(self) -> None:
        (self.where / "pg" / "postmaster.pid").unlink(missing_ok=True)  # of before the crash; the number may be reused
        settings = self.settings | {"unix_socket_directories": str(self.run)}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._launch(_found("postgres"), "-D", self.where / "pg", *words)

    def client(self) -> list[str]:
        return [_found("psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", *self._where()]

    def _where(self) -> list[str]:
        return ["-h", str(self.run), "-U", "proof", "-d", "postgres"]

    def ack(self, number: int) -> str:
        return f"\n\\echo ack {number}"

    def check(self) -> None:
        self._do(_found("pg_amcheck"), "--heapallindexed", *self._where())
        self.stop()
        self._do(_found("pg_checksums"), "--check", "-D", self.where / "pg")


class MariaDb(Server):
    """MariaDB with InnoDB."""

    name = "mariadb"
    user = "mysql"
    disk_bytes = 768 * MIB
    clients = 4

    @classmethod
    def obstacle(cls) -> str:
        return missing("mariadbd", "mariadb", "mariadb-install-db")

    def account(self) -> dict[str, int]:
        try:
            return super().account()
        except KeyError:  # only the programs are installed: any user that is not root will do
            entry = pwd.getpwnam("nobody")
            return {"user": entry.pw_uid, "group": entry.pw_gid}

    def create(self) -> None:
        self._own(self.where / "maria", self.run)
        self._do(
            _found("mariadb-install-db"),
            f"--datadir={self.where / 'maria'}",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
        )
        self.start()
        self.ask("CREATE DATABASE proof;")
        self.fill()

    def start(self) -> None:
        self._launch(
            _found("mariadbd"),
            "--no-defaults",
            f"--datadir={self.where / 'maria'}",
            f"--socket={self.run / 'socket'}",
            f"--pid-file={self.run / 'pid'}",
            "--skip-networking",
            "--sql-mode=PIPES_AS_CONCAT",
            "--innodb-flush-log-at-trx-commit=1",
            "--innodb-log-file-size=32M",
            "--innodb-buffer-pool-size=64M",
        )

    def client(self) -> list[str]:
        database = ["proof"] if (self.where / "maria" / "proof").exists() else []
        options = ["--no-defaults", "-uroot", f"--socket={self.run / 'socket'}", "-N", "-B", "-n"]
        return [_found("mariadb"), *options, *database]

    def ack(self, number: int) -> str:
        return f"SELECT 'ack {number}';"

    def check(self) -> None:
        found = self.ask("CHECK TABLE accounts, commits EXTENDED;")
        if [row.split("\t")[-2:] for row in found] != [["status", "OK"]] * 2:
            raise Lost(f"{self.name}: {found}")
        self.stop()


def _found(name: str) -> str:
    path = program(name)
    assert path is not None, f"{name} was looked for before"
    return path


ENGINES: dict[str, type[Engine]] = {engine.name: engine for engine in (Sqlite, SqliteRollback, Postgres, MariaDb)}
