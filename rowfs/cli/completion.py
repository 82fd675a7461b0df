"""`completion`: the script that makes a shell complete `rowfs`."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

# Bash takes @ for the end of a word, so that vm1@before would arrive in three pieces.
BASH_WORDS = 'COMP_WORDBREAKS="${COMP_WORDBREAKS//@}"\n'


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    Disks are completed, and their snapshots behind an @.

    \b
    Examples:
      eval "$(rowfs completion bash)"        # in ~/.bashrc
      eval "$(rowfs completion zsh)"         # in ~/.zshrc
      rowfs completion fish > ~/.config/fish/completions/rowfs.fish
    """
    script_class = get_completion_class(shell)
    assert script_class is not None
    script = script_class(ctx.find_root().command, {}, "rowfs", "_ROWFS_COMPLETE").source()
    click.echo((BASH_WORDS if shell == "bash" else "") + script)
