"""`policy`: snapshots by a schedule."""

from __future__ import annotations

import os
import shlex
from datetime import datetime
from typing import Any

from rowfs.base.errors import RowfsError, UsageError
from rowfs.base.names import printable
from rowfs.cli.addresses import Address, need_disk
from rowfs.cli.declared import command
from rowfs.cli.output import NOTHING, count, format_table, say, say_fields, say_json, say_warning
from rowfs.cli.params import hook_words, only_mount
from rowfs.cli.session import ask
from rowfs.rules.times import format_instant, parse_zone, to_ns
from rowfs.verbs import policies as verbs

HEADER = ("NAME", "SCHEDULE", "KEEPS", "NEXT", "LAST RUN")
PREVIEW_HEADER = ("RUN", "TAKES", "GOES", "KEPT")
ZONES = "/usr/share/zoneinfo/"
HOOKS = ("pre", "post", "on_failure")


def own_zone(localtime: str = "/etc/localtime") -> str:
    """The time zone of this machine, by its name; UTC where nobody can tell."""
    name = os.environ.get("TZ", "").removeprefix(":") or os.path.realpath(localtime).rpartition("/zoneinfo/")[2]
    try:
        return parse_zone(name).key
    except UsageError:
        return "UTC"


def _params(options: dict[str, Any]) -> dict[str, Any]:
    """What was typed, as the socket takes it; what was not, is left out."""
    found: dict[str, Any] = {}
    for name, value in options.items():
        if value is None or value is False or value == ():
            continue
        if name in HOOKS:
            found[name] = hook_words(str(value))
        else:
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


@command(verbs.POLICY_CREATE)
def create(address: Address, name: str, preview: bool, as_json: bool, **options: Any) -> None:
    """Carries out `rowfs policy create`."""
    options["tz"] = options["tz"] or own_zone()
    answer = ask(address.mount, "policy_create", policy=name, preview=preview or None, **_params(options))
    if preview:
        _say_preview(answer, as_json)
    else:
        _say_policy(answer, as_json)


@command(verbs.POLICY_EDIT)
def edit(
    address: Address,
    name: str,
    freeze: bool,
    no_freeze: bool,
    group: bool,
    no_group: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Carries out `rowfs policy edit`."""
    if (freeze and no_freeze) or (group and no_group):
        raise UsageError("an option and its opposite: say one of them")
    switches: dict[str, Any] = {
        "freeze": True if freeze else False if no_freeze else None,
        "group": True if group else False if no_group else None,
    }
    _say_policy(ask(address.mount, "policy_edit", policy=name, **switches, **_params(options)), as_json)


def _say_policy(policy: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(policy)
        return
    coming = "paused" if policy["paused"] else f"next {_shown(policy['next'], policy)}"
    say(f"{policy['name']}: {policy['schedule']}; keeps {policy['keeps']}; {coming}")
    if not policy["disks"]:
        say_warning(f"there is no disk now that {policy['name']} is about: {policy['chooses']}")


@command(verbs.POLICY_LIST)
def list_(address: Address | None, as_json: bool) -> None:
    """Carries out `rowfs policy list`."""
    found = ask((address or only_mount()).mount, "policy_list")
    if as_json:
        say_json(found)
        return
    for item in found["unreadable"]:
        say_warning(f"the policy {item['name']} takes and deletes nothing: {item['why']}")
    say(*format_table([HEADER, *map(_row, found["policies"])]))
    if found["policies"] and found["unprotected"]:
        say(f"in no policy that runs: {', '.join(map(printable, found['unprotected']))}")


def _row(policy: dict[str, Any]) -> tuple[str, ...]:
    coming = "paused" if policy["paused"] else _shown(policy["next"], policy)
    return (printable(policy["name"]), policy["schedule"], policy["keeps"], coming, _last(policy))


def _last(policy: dict[str, Any]) -> str:
    last = policy["last"]
    if policy["running"]:
        return "running"
    if last is None:
        return "failed: it ended with its daemon" if policy["failures"] else NOTHING
    if last["failures"]:
        return f"failed: {printable(last['failures'][0])}"
    return f"{_shown(last['due'], policy)}, {last['taken']} taken, {last['expired']} gone"


def _shown(time: str | None, policy: dict[str, Any]) -> str:
    if time is None:
        return NOTHING
    return format_instant(to_ns(datetime.fromisoformat(time)), parse_zone(policy["tz"]))


@command(verbs.POLICY_SHOW)
def show(address: Address, name: str, as_json: bool) -> None:
    """Carries out `rowfs policy show`."""
    policy = ask(address.mount, "policy_show", policy=name)
    if as_json:
        say_json(policy)
        return
    hooks, last = policy["hooks"], policy["last"] or {}
    ways = [word for word in ("freeze", "group") if policy[word]]
    say_fields(
        [
            ("policy", printable(policy["name"])),
            ("schedule", policy["explained"]),
            ("keeps", policy["keeps"]),
            ("of", printable(policy["chooses"])),
            ("disks now", ", ".join(map(printable, policy["disks"])) or "none"),
            ("snapshots", str(policy["snapshots"])),
            *([("taken with", ", ".join(ways))] if ways else []),
            ("at a limit", policy["when_limited"]),
            *((f"hook {key}", printable(shlex.join(hooks[key]))) for key in HOOKS if hooks[key]),
            ("next", "paused" if policy["paused"] else _shown(policy["next"], policy)),
            ("last run", _last(policy)),
            *([("tried again", _shown(policy["retry"], policy))] if policy["retry"] else []),
            *(("failure", printable(text)) for text in last.get("failures", [])),
            *(("kept", printable(text)) for text in last.get("kept", [])),
        ]
    )


@command(verbs.POLICY_PAUSE)
def pause(address: Address, name: str, as_json: bool) -> None:
    """Carries out `rowfs policy pause`."""
    _say_policy(ask(address.mount, "policy_pause", policy=name), as_json)


@command(verbs.POLICY_RESUME)
def resume(address: Address, name: str, as_json: bool) -> None:
    """Carries out `rowfs policy resume`."""
    _say_policy(ask(address.mount, "policy_resume", policy=name), as_json)


@command(verbs.POLICY_RUN)
def run(address: Address, name: str, confirm_clock: bool, as_json: bool) -> None:
    """Carries out `rowfs policy run`."""
    outcome = ask(address.mount, "policy_run", policy=name, confirm_clock=confirm_clock or None)
    if as_json:
        say_json(outcome)
    else:
        say(f"{name}: {count(outcome['taken'], 'snapshot')} taken, {outcome['expired']} gone")
    if outcome["failures"]:
        first, *others = outcome["failures"]
        more = f"; and {len(others)} more: rowfs policy show tells of them" if others else ""
        raise RowfsError(f"the run of {name} failed: {first}{more}")


@command(verbs.POLICY_DELETE)
def delete(address: Address, name: str, as_json: bool) -> None:
    """Carries out `rowfs policy delete`."""
    answer = ask(address.mount, "policy_delete", policy=name)
    if as_json:
        say_json(answer)
        return
    left = answer["snapshots"]
    stay = f"; its {count(left, 'snapshot')} stay until deleted by hand" if left else ""
    say(f"{name}: deleted{stay}")


@command(verbs.POLICY_EXPLAIN)
def explain(address: Address, as_json: bool) -> None:
    """Carries out `rowfs policy explain`."""
    found = ask(address.mount, "policy_explain", disk=need_disk(address))
    if as_json:
        say_json(found)
        return
    say(*format_table([(f"@{printable(item['snapshot'])}", printable(item["text"])) for item in found]))


@command(verbs.POLICY_PREVIEW)
def preview(address: Address, name: str, as_json: bool) -> None:
    """Carries out `rowfs policy preview`."""
    disk = None if address.disk is None else need_disk(address)
    _say_preview(ask(address.mount, "policy_preview", disk=disk, policy=name), as_json)


def _say_preview(answer: dict[str, Any], as_json: bool) -> None:
    if as_json:
        say_json(answer)
        return
    rows = [
        (_shown(run["due"], answer), printable(run["takes"]), _goes(run["goes"]), str(run["kept"]))
        for run in answer["runs"]
    ]
    say(*format_table([PREVIEW_HEADER, *rows], right=(3,)), "", "kept then:")
    say(*format_table([(f"  {printable(item['snapshot'])}", item["text"]) for item in answer["kept"]]))


def _goes(names: list[str]) -> str:
    if not names:
        return NOTHING
    return printable(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")
