"""`completion`: the script that makes a shell complete `rowfs`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from rowfs.cli.declared import command
from rowfs.verbs.using import COMPLETION

# Bash takes @ for the end of a word, so that vm1@before would arrive in three pieces.
BASH_WORDS = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//@}"\n'


@command(COMPLETION)
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Carries out `rowfs completion`."""
    script_class = get_completion_class(shell)
    assert script_class is not None
    script = script_class(ctx.find_root().command, {}, "rowfs", "_ROWFS_COMPLETE").source()
    click.echo((BASH_WORDS if shell == "bash" else "") + script)
