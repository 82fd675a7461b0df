"""From the declaration of a verb to the command of the command line: its arguments, options and help."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import click

from rowfs.cli.params import ADDRESS, ADDRESS_TEXT, DIRECTORY, FILE, SIZE
from rowfs.verbs.declare import Declared, Family, Input, Kind, Verb

TYPES: dict[Kind, click.ParamType[Any]] = {
    Kind.ADDRESS: ADDRESS,
    Kind.ADDRESS_TEXT: ADDRESS_TEXT,
    Kind.DIRECTORY: DIRECTORY,
    Kind.FILE: FILE,
    Kind.SIZE: SIZE,
    Kind.SECONDS: click.FLOAT,
}


def command(verb: Verb) -> Callable[[Callable[..., Any]], click.Command]:
    """Makes the function below it the command that `verb` declares: it gets what was typed by the inputs' names."""

    def made(function: Callable[..., Any]) -> click.Command:
        # So that -5G reaches the size it is meant to be, and is not looked up as an option.
        dashed = any(item.kind in (Kind.SIZE, Kind.SIZE_CHANGE) and not item.flags for item in verb.on_command)
        return click.Command(
            verb.name.rpartition(" ")[2],
            callback=function,
            params=[_parameter(item) for item in verb.on_command],
            help=help_of(verb),
            context_settings={"ignore_unknown_options": True} if dashed else None,
        )

    return made


def help_of(declared: Declared) -> str:
    """What --help says, as click takes it: paragraphs, and examples as they are."""
    parts = [declared.about, *([declared.text.strip()] if declared.text else [])]
    if declared.examples:
        head = "Example:" if len(declared.examples) == 1 else "Examples:"
        parts.append("\n".join(["\b", head, *(f"  {line}" for line in declared.examples)]))
    return "\n\n".join(parts)


def find_command(declared: Declared) -> click.Command:
    """The command of a verb, from the module that carries it out; of a family, a group that finds its verbs."""
    if isinstance(declared, Family):
        return DeclaredGroup({verb.name.rpartition(" ")[2]: verb for verb in declared.verbs}, declared)
    module, _, attribute = declared.place.partition(":")
    found = getattr(import_module(f"rowfs.cli.{module}"), attribute)
    assert isinstance(found, click.Command)
    return found


class DeclaredGroup(click.Group):
    """Commands by name that are imported when they are asked for."""

    def __init__(self, declared: dict[str, Verb], family: Family) -> None:
        # Options of the verb that is meant when no word says which are not the group's.
        settings = {"ignore_unknown_options": True} if family.otherwise else None
        super().__init__(family.name, help=help_of(family), context_settings=settings)
        self._declared = declared
        self._otherwise = family.otherwise

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first word names, or that which is meant otherwise."""
        if self._otherwise and args[0] not in self._declared:
            return self._otherwise, self.get_command(ctx, self._otherwise), args
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of --help."""
        return list(self._declared)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name."""
        return find_command(self._declared[cmd_name]) if cmd_name in self._declared else None


def _parameter(item: Input) -> click.Parameter:
    return _option(item) if item.flags else _argument(item)


def _argument(item: Input) -> click.Parameter:
    shown = item.placeholder if item.needed else f"[{item.placeholder}]"
    nargs = -1 if item.many else 1
    metavar = f"{shown}..." if item.many else shown
    return click.Argument([item.name], type=_type(item), required=item.needed, nargs=nargs, metavar=metavar)


def _option(item: Input) -> click.Parameter:
    if item.kind is Kind.FLAG:
        flags = [f"{item.flags[0]}/{item.off}"] if item.off else list(item.flags)
        return click.Option([item.name, *flags], is_flag=True, default=bool(item.default), help=item.help)
    chosen: dict[str, Any] = {} if item.default is None else {"default": item.default, "show_default": True}
    return click.Option(
        [item.name, *item.flags],
        type=_type(item),
        required=item.needed,
        multiple=item.many,
        metavar=item.metavar or None,
        help=item.help,
        **chosen,
    )


def _type(item: Input) -> click.ParamType[Any]:
    if item.words:
        return click.Choice(item.words)
    if item.kind is Kind.NUMBER:
        return click.INT if item.least is item.most is None else click.IntRange(item.least, item.most)
    return TYPES.get(item.kind, click.STRING)
