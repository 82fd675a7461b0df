"""`check`: whether a pool is in order."""

from __future__ import annotations

import os

import click

from rowfs.base.errors import PoolError
from rowfs.base.names import printable
from rowfs.cli.declared import command
from rowfs.cli.mounts import absolute
from rowfs.cli.output import count, say, say_json
from rowfs.cli.progress import Progress
from rowfs.verbs.pools import CHECK

CLEAN, PROBLEMS, UNUSABLE = 0, 1, 2


@command(CHECK)
def check(pool: str, repair: bool, as_json: bool) -> int:
    """Carries out `rowfs check`."""
    from rowfs.store.check import check_pool  # here: it brings lmdb and numpy along, which no other command needs

    path = os.path.normpath(absolute(pool))
    try:
        with Progress() as progress:
            findings, mended = check_pool(path, lambda done, total: progress(done, total, "checking"), repair)
    except PoolError as error:
        return _say_unusable(path, error, as_json)
    return _say_findings(path, [str(finding) for finding in findings], mended, repair, as_json)


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
