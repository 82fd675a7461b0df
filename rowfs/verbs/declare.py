"""What a verb is declared with.

An input may have two faces: one on the command line, an argument or an option, and parameters on the socket. What is a
path on the command line is a disk and a snapshot on the socket; most others are the same on both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What a value is. On the socket: string (name, text), number (size in bytes, number, seconds), boolean, array."""

    NAME = "name"
    TEXT = "text"
    NAMES = "names"
    SIZE = "size"
    NUMBER = "number"
    SECONDS = "seconds"
    FLAG = "flag"
    # Of the command line alone.
    ADDRESS = "address"  # a path on a mount, which has to be one
    ADDRESS_TEXT = "address or name"
    DIRECTORY = "directory"
    FILE = "file"
    WORD = "word"  # one of a few
    SIZE_CHANGE = "size change"  # a size, with + or - in front where it is relative


@dataclass(frozen=True)
class Param:
    """A parameter on the socket."""

    name: str
    kind: Kind
    required: bool = True

    def __str__(self) -> str:
        """As docs/CONTROL.md writes it."""
        shown = {Kind.FLAG: f"{self.name}: bool", Kind.NAMES: f"{self.name}: [name…]"}.get(self.kind, self.name)
        return shown if self.required else f"[{shown}]"


@dataclass(frozen=True)
class Input:
    """An argument (without `flags`) or an option of the command line, under `name`; and what it is on the socket."""

    name: str
    kind: Kind
    flags: tuple[str, ...] = ()
    off: str = ""  # the flag that says no
    help: str = ""
    metavar: str = ""
    many: bool = False
    required: bool | None = None  # None: an argument is, an option is not
    words: tuple[str, ...] = ()
    least: int | None = None
    most: int | None = None
    default: str | bool | None = None
    params: tuple[Param, ...] = ()
    hidden: bool = False  # not on the command line

    @property
    def needed(self) -> bool:
        """Whether it has to be given."""
        return not self.flags if self.required is None else self.required

    @property
    def placeholder(self) -> str:
        """What stands for its value in usage lines; nothing for a flag."""
        if self.kind is Kind.FLAG:
            return ""
        if self.words:
            return "|".join(self.words)
        return self.metavar or {Kind.SIZE_CHANGE: "[+|-]SIZE", Kind.NUMBER: "N"}.get(self.kind, self._called)

    @property
    def _called(self) -> str:
        return self.kind.upper() if self.flags else self.name.upper()

    @property
    def usage(self) -> str:
        """As a usage line writes it."""
        shown = " ".join(filter(None, [self.off or (self.flags[0] if self.flags else ""), self.placeholder]))
        shown = shown if self.needed else f"[{shown}]"
        return f"{shown}..." if self.many else shown


def wire(*params: Param) -> Input:
    """Parameters that only the socket has."""
    return Input(name="", kind=Kind.TEXT, params=params, hidden=True)


def flag(option: str, help: str, short: str = "", on_socket: bool = False, params: tuple[Param, ...] = ()) -> Input:
    """An option without a value; `on_socket`: it is a parameter of the same name there."""
    name = option.removeprefix("--").replace("-", "_")
    found = (Param(name, Kind.FLAG, required=False),) if on_socket else params
    return Input(name, Kind.FLAG, flags=(short, option) if short else (option,), help=help, params=found)


def selector(params: tuple[Param, ...] = ()) -> Input:
    """The option that chooses by labels instead of by name."""
    help = "Those with such labels: env=prod, 'env in (a,b)', !old."
    return Input("selector", Kind.TEXT, flags=("-l", "--label"), metavar="SELECTOR", help=help, params=params)


JSON = Input("as_json", Kind.FLAG, flags=("--json",), help="Print one JSON document instead of text.")


@dataclass(frozen=True)
class Failure:
    """What a verb may refuse, and with which errno on the socket; none: the command line alone says it."""

    when: str
    errno: str = ""


# What any verb may answer: wrong parameters or names, a host that fails; and one that changes anything.
ERRNOS = frozenset({"EINVAL", "ENAMETOOLONG", "EIO"})
ERRNOS_OF_CHANGES = frozenset({"EROFS", "ENOSPC"})


@dataclass(frozen=True, kw_only=True)
class Verb:
    """One verb. `about` is one sentence, `text` what --help says beyond it, `manual` what the documents say instead.

    `place`: where the command line carries it out, as module:function of rowfs.cli; empty: it has no command.
    `method`: its name on the socket; empty: it is not there. `result`: what that answers. `errors`: those beyond what
    any verb may give. `progress`: what is counted while it works; empty: it does not say how far it is.
    """

    name: str
    about: str
    inputs: tuple[Input, ...] = ()
    text: str = ""
    examples: tuple[str, ...] = ()
    manual: str = ""
    place: str = ""
    method: str = ""
    result: str = ""
    errors: tuple[Failure, ...] = ()
    progress: str = ""
    changes: bool  # whether anything is another way afterwards

    @property
    def params(self) -> tuple[Param, ...]:
        """Its parameters on the socket, in order."""
        return tuple(param for item in self.inputs for param in item.params)

    @property
    def errnos(self) -> frozenset[str]:
        """What the socket may answer instead of a result."""
        own = frozenset(failure.errno for failure in self.errors if failure.errno)
        return own | ERRNOS | (ERRNOS_OF_CHANGES if self.changes else frozenset())

    @property
    def on_command(self) -> tuple[Input, ...]:
        """Its arguments and options, in order."""
        return tuple(item for item in self.inputs if not item.hidden)

    @property
    def usage(self) -> str:
        """How it is typed."""
        return " ".join(["rowfs", self.name, *(item.usage for item in self.on_command)])


@dataclass(frozen=True, kw_only=True)
class Family:
    """Verbs under one word, as `rowfs group list`. `otherwise`: which is meant when the next word is none of them."""

    name: str
    about: str
    verbs: tuple[Verb, ...]
    otherwise: str = ""
    text: str = ""
    examples: tuple[str, ...] = ()
    manual: str = ""

    @property
    def usage(self) -> str:
        """How each is typed, a line each."""
        return "\n".join(verb.usage for verb in self.verbs)


Declared = Verb | Family


def each_verb(declared: tuple[Declared, ...]) -> Iterator[Verb]:
    """All verbs, those of families too."""
    for item in declared:
        yield from item.verbs if isinstance(item, Family) else (item,)
