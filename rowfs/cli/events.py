"""`events`: what happened in a pool, and who did it."""

from __future__ import annotations

import pwd
from typing import Any

from rowfs.base.names import printable
from rowfs.cli.addresses import Address
from rowfs.cli.client import DaemonGoneError
from rowfs.cli.declared import command
from rowfs.cli.moments import instant
from rowfs.cli.output import count, local_time, say, say_json, say_warning
from rowfs.cli.params import only_mount
from rowfs.cli.session import ask
from rowfs.rules.telling import told
from rowfs.verbs.events import EVENTS

WAIT_S = 10.0  # of one question, while --follow waits


@command(EVENTS)
def events(address: Address | None, since: str | None, after: int | None, follow: bool, as_json: bool) -> None:
    """Carries out `rowfs events`."""
    mount = (address or only_mount()).mount
    params: dict[str, Any] = {"since": None if since is None else instant(since), "after": after}
    found: list[dict[str, Any]] = []

    def take(items: list[dict[str, Any]]) -> None:
        if as_json and not follow:
            found.extend(items)
        else:
            for item in items:
                say_json(item) if as_json else say(event_shown(item))

    answer = ask(mount, "events", on_parts=take, **params)
    _say_lost(answer["lost"])
    if as_json and not follow:
        say_json(found)
    while follow and not answer["ending"]:
        params["after"] = answer["last"]
        try:
            answer = ask(mount, "events", on_parts=take, wait_s=WAIT_S, **params)
        except DaemonGoneError:  # unmounted between two questions
            return
        _say_lost(answer["lost"])


def _say_lost(number: int) -> None:
    if number:
        say_warning(f"{count(number, 'event')} before these {'is' if number == 1 else 'are'} no longer kept")


def event_shown(event: dict[str, Any]) -> str:
    """An event on one line."""
    said = told(*(event[key] for key in ("verb", "failed", "disk", "snapshot", "group", "size_bytes", "text")))
    return printable(f"{event['number']:>5}  {local_time(event['time'])}  {_who(event)}  {said}")


def _who(event: dict[str, Any]) -> str:
    if event["uid"] is None:
        return "rowfs itself"
    try:
        user = pwd.getpwuid(event["uid"]).pw_name
    except KeyError:
        user = str(event["uid"])
    return f"{user} ({event['command'] or '?'} {event['pid']})"
