"""`check`: whether a pool is in order."""

from __future__ import annotations

import os

import click

from rowfs.base.errors import PoolError
from rowfs.base.names import printable
from rowfs.cli.mounts import absolute
from rowfs.cli.output import count, say, say_json
from rowfs.cli.params import DIRECTORY, json_option
from rowfs.cli.progress import Progress

CLEAN, PROBLEMS, UNUSABLE = 0, 1, 2


@click.command()
@click.argument("pool", type=DIRECTORY)
@click.option("--repair", is_flag=True, help="Mend what follows from the rest: bitmaps, the change index, figures.")
@json_option
def check(pool: str, repair: bool, as_json: bool) -> int:
    """Check the block map of POOL. Nothing is changed without --repair.

    A mounted pool can be checked too, but not repaired: what is looked at is its last commit.

    Exit codes: 0 clean (or all mended), 1 problems found, 2 not usable as a pool at all.

    \b
    Examples:
      rowfs check /srv/pool
      rowfs check /srv/pool --repair
    """
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
