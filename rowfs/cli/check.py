"""`check`: whether a pool is in order."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial

import click

from rowfs.base.errors import BusyError, PoolError, RowfsError
from rowfs.base.names import printable
from rowfs.cli.client import Client, DaemonGoneError
from rowfs.cli.connecting import client_of
from rowfs.cli.declared import command
from rowfs.cli.mounts import absolute, current_mounts
from rowfs.cli.output import count, say, say_json
from rowfs.cli.progress import Progress
from rowfs.verbs.pools import CHECK

CLEAN, PROBLEMS, UNUSABLE = 0, 1, 2
BEGINNING_S = 5.0  # that a daemon may need from holding its pool to answering


@command(CHECK)
def check(pool: str, repair: bool, data: bool, other_owner: bool, as_json: bool) -> int:
    """Carries out `rowfs check`."""
    from rowfs.store.check import check_pool  # here: it brings lmdb and numpy along, which no other command needs

    path = os.path.normpath(absolute(pool))
    try:
        with Progress() as progress:
            findings, mended = check_pool(
                path,
                lambda done, total: progress(done, total, "checking"),
                repair,
                partial(_hold, path),
                other_owner,
                data,
            )
    except PoolError as error:
        return _say_unusable(path, error, as_json)
    return _say_findings(path, [str(finding) for finding in findings], mended, repair, as_json)


def _hold(path: str) -> Client:
    """A connection to the daemon of a pool, which keeps the last commit as long as it lasts. Raises BusyError."""
    deadline = time.monotonic() + BEGINNING_S
    while True:
        try:
            client = _client(path)
        except DaemonGoneError:
            if time.monotonic() > deadline:
                raise BusyError(f"the pool {path} is in use, but not by a daemon that answers: try again") from None
            time.sleep(0.05)
        else:
            client.call("hold")
            return client


def _client(path: str) -> Client:
    """The daemon of a pool, by its socket; where that is lost, by the mount that shows it. Raises DaemonGoneError."""
    try:
        return Client(path)
    except DaemonGoneError:
        for mount in current_mounts():
            with suppress(RowfsError, OSError):
                client = client_of(mount)
                if os.path.samefile(client.call("hello")["pool"], path):
                    return client
                client.close()
        raise


def _say_findings(path: str, findings: list[str], mended: bool, repair: bool, as_json: bool) -> int:
    if as_json:
        say_json({"pool": path, "usable": True, "findings": findings, "mended": mended})
    else:
        say(*map(printable, findings), f"{path}: {_outcome(len(findings), mended, repair)}")
    return PROBLEMS if findings and not mended else CLEAN


def _outcome(number: int, mended: bool, repair: bool) -> str:
    if not number:
        return "clean"
    if mended:
        return f"{count(number, 'problem')} found and mended"
    return f"{count(number, 'problem')} found" + (", not all of them can be mended" if repair else "")


def _say_unusable(path: str, error: PoolError, as_json: bool) -> int:
    if as_json:
        say_json({"pool": path, "usable": False, "findings": [str(error)]})
    click.echo(f"rowfs: {printable(str(error))}", err=True)
    return UNUSABLE
