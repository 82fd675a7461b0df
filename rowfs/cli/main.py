"""The command `rowfs`: finds the verb, runs it, and turns what goes wrong into one line and an exit code."""

from __future__ import annotations

import os
import sys
from typing import NoReturn

import click

from rowfs import __version__
from rowfs.base.errors import RowfsError, UsageError, system_error_line
from rowfs.base.names import printable
from rowfs.cli.declared import find_command
from rowfs.cli.encoding import speak_utf8
from rowfs.cli.signals import interruptible, is_interrupt, keep_interrupts, uninterrupted
from rowfs.verbs.table import COMMANDS

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, RowfsError.exit_code, UsageError.exit_code, 130
DEBUG_VARIABLE = "ROWFS_DEBUG"  # set: an unexpected error shows its traceback


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of --help."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        if cmd_name not in COMMANDS:
            return None
        with uninterrupted():
            return find_command(COMMANDS[cmd_name])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rowfs", message="%(prog)s %(version)s")
def cli() -> None:
    """Virtual disks as files, with live redirect-on-write snapshots.

    A pool is a directory that holds everything. Mounted, it shows every disk as a file, and every snapshot as a
    read-only file below .snapshots. Commands take paths on the mount: MNT/disk, MNT/disk@snapshot.

    \b
    Example:
      rowfs init /srv/pool
      rowfs mount /srv/pool /mnt/rowfs
      rowfs create /mnt/rowfs/vm1 20G
      rowfs snapshot /mnt/rowfs/vm1@before
      rowfs list

    Exit codes: 0 done, 1 failed, 2 usage.
    """


def main() -> NoReturn:
    """Runs the command line of this process and exits."""
    keep_interrupts()
    speak_utf8()
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Runs `rowfs` with `arguments` and says in one line on stderr what went wrong. The exit code."""
    try:
        with interruptible():
            result = cli.main(arguments, prog_name="rowfs", standalone_mode=False)
            if sys.stdout is not None:  # as it is when we were started with it closed
                sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return FAILED
    except Exception as error:
        return _interrupted() if is_interrupt(error) else _report(error)
    except KeyboardInterrupt:
        return _interrupted()
    return result if isinstance(result, int) else DONE


def _report(error: Exception) -> int:
    """Prints `error`. The exit code it stands for."""
    if DEBUG_VARIABLE in os.environ:
        sys.excepthook(type(error), error, error.__traceback__)
    match error:
        case click.Abort():
            return _interrupted()
        case click.exceptions.NoArgsIsHelpError():
            error.show()
            return WRONG_USAGE
        case click.UsageError():
            return _complain(_usage_line(error), WRONG_USAGE)
        case click.ClickException():
            return _complain(" ".join(error.format_message().split()), FAILED)
        case RowfsError():
            return _complain(str(error), error.exit_code)
        case OSError():
            return _complain(system_error_line(error), FAILED)
    what = f"{type(error).__name__}: {error}".rstrip(": ")
    return _complain(f"a fault in rowfs itself: {what} ({DEBUG_VARIABLE}=1 shows where)", FAILED)


def _complain(message: str, code: int) -> int:
    click.echo(f"rowfs: {printable(message)}", err=True)
    return code


def _usage_line(error: click.UsageError) -> str:
    """Click's message and where to read more, on one line."""
    where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
    return " ".join(error.format_message().split()).rstrip(".") + where


def _interrupted() -> int:
    click.echo("rowfs: interrupted", err=True)
    return INTERRUPTED


def _drop_stdout() -> None:
    """Nobody reads our output any more: let Python's flush at exit not stumble over that again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
