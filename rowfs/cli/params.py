"""The kinds of argument that several commands take, and the options that they share."""

from __future__ import annotations

import os
import shlex
from typing import Any

import click
from click.shell_completion import CompletionItem

from rowfs.base.errors import NotFoundError, UsageError
from rowfs.base.units import parse_size
from rowfs.cli.addresses import Address, parse_address
from rowfs.cli.completing import complete_address
from rowfs.cli.connecting import mount_of_pool
from rowfs.cli.mounts import current_mounts, resolve_path


def find_address(text: str) -> Address:
    """What the path `text` names among the rowfs mounts there are now. Raises NotFoundError, UsageError."""
    mounts = current_mounts()
    return parse_address(text, resolve_path(text, mounts), mounts, _is_pool, lambda pool: mount_of_pool(pool, mounts))


def _is_pool(path: str) -> bool:
    from rowfs.store.pool import is_pool  # here: it brings lmdb and numpy along, which is too slow for every command

    return is_pool(path)


def only_mount() -> Address:
    """The rowfs mount, when there is exactly one. Raises NotFoundError or UsageError otherwise."""
    there = current_mounts()
    own = [mount for mount in there if mount.owner == os.geteuid()]  # what others mount is not in the way
    found = list({(mount.device, mount.pool): mount for mount in own or there}.values())
    if not found:
        raise NotFoundError("nothing is mounted: mount a pool first with rowfs mount POOL DIR")
    if len(found) > 1:
        listed = ", ".join(sorted(mount.mountpoint for mount in found))
        raise UsageError(f"there are several rowfs mounts: name one of {listed}")
    (mount,) = found
    return Address(mount.mountpoint, mount)


def hook_words(text: str) -> list[str]:
    """The words of a hook, split as a shell would. Raises UsageError."""
    try:
        return shlex.split(text)
    except ValueError as error:
        raise UsageError(f"{text!r:.80} is no command: {error}") from None


def _not_empty(kind: click.ParamType[Any], value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
    """`value`, a path; nothing, as an unset variable of the shell gives it, is not the current directory."""
    if not value:
        kind.fail("a path cannot be empty", param, ctx)
    return str(value)


class AddressType(click.ParamType[Address]):
    """A path on a rowfs mount."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Address:
        """The address that the path `value` is."""
        return value if isinstance(value, Address) else find_address(_not_empty(self, value, param, ctx))

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Disks, and their snapshots behind an @."""
        return complete_address(incomplete)


class AddressTextType(click.ParamType[str]):
    """A path on a rowfs mount, or a bare name: which one depends on the arguments beside it."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` as it is."""
        return _not_empty(self, value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """Disks, and their snapshots behind an @."""
        return complete_address(incomplete)


class PlainPathType(click.ParamType[str]):
    """A path as it is typed, completed by the shell. Unlike click.Path it does not look: a dead mount would hang."""

    name = "path"

    def __init__(self, completed: str) -> None:
        self._completed = completed

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """`value` as it is."""
        return _not_empty(self, value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        """What the shell knows itself."""
        return [CompletionItem(incomplete, type=self._completed)]


class SizeType(click.ParamType[int]):
    """A number of bytes, as 20G."""

    name = "size"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The bytes that `value` names."""
        return value if isinstance(value, int) else parse_size(value)


ADDRESS = AddressType()
ADDRESS_TEXT = AddressTextType()
DIRECTORY = PlainPathType("dir")
FILE = PlainPathType("file")
SIZE = SizeType()
