"""The socket's verbs on policies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rowfs.base.errors import UsageError
from rowfs.base.times import TIME_NS_MAX, rfc3339
from rowfs.control.connection import BadParams, Caller, Method
from rowfs.control.params import Params, parameters
from rowfs.rules.forecast import line, preview
from rowfs.rules.policies import AfterPre, Policy, WhenLimited, check_policy, snapshot_name
from rowfs.rules.runs import Outcome
from rowfs.rules.schedules import DAYS, Schedule, described, next_start, parse_schedule
from rowfs.rules.selectors import Choice, check_pattern, parse_selector
from rowfs.rules.times import format_span, parse_span, parse_zone
from rowfs.service.policies import PolicyRunner
from rowfs.service.policyrun import plans
from rowfs.service.service import Service
from rowfs.service.slices import Slices
from rowfs.verbs import policies as verbs
from rowfs.verbs.declare import Verb

RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
OFF = "off"
Given = Mapping[str, Any]


class PolicyMethods:
    """What clients may ask of the policies of one mounted pool."""

    def __init__(self, service: Service, runner: PolicyRunner) -> None:
        self._service = service
        self._pool = service.pool
        self._book = service.pool.policies
        self._runner = runner

    def table(self) -> dict[str, Method]:
        """The methods by name."""
        return {
            "policy_create": self.create,
            "policy_list": self.list_policies,
            "policy_show": self.show,
            "policy_pause": self.pause,
            "policy_resume": self.resume,
            "policy_run": self.run,
            "policy_delete": self.delete,
            "policy_edit": self.edit,
            "policy_explain": self.explain,
            "policy_preview": self.preview,
        }

    # Looking

    def _object(self, policy: Policy) -> dict[str, Any]:
        """A policy as docs/CONTROL.md has it."""
        now = self._runner.now_ns()
        state, outcome = self._book.state(policy.id, now), self._book.outcome(policy.id)
        next_ns = None if policy.paused else next_start(policy.schedule, max(now, state.floor_ns))
        hooks = policy.hooks
        return {
            "name": policy.name,
            "id": policy.id,
            "schedule": str(policy.schedule),
            "explained": described(policy.schedule),
            "tz": policy.schedule.tz,
            "keeps": str(policy.retention),
            "chooses": str(policy.choice),
            "disks": [disk.name for disk in self._pool.catalog.live() if policy.choice.chooses(disk.name, disk.labels)],
            "snapshots": len(self._pool.catalog.snapshots.of_policy(policy.id)),
            "paused": policy.paused,
            "freeze": policy.freeze,
            "group": policy.group,
            "when_limited": str(policy.when_limited),
            "hooks": {
                "pre": list(hooks.pre),
                "post": list(hooks.post),
                "on_failure": list(hooks.on_failure),
                "limit": format_span(hooks.limit_ns),
                "after_pre": str(hooks.after_pre),
            },
            "running": state.running_due_ns is not None and state.life == self._runner.life,
            "failures": state.failures,
            "retry": _time(state.retry_ns),
            "next": _time(next_ns),
            "last": None if outcome is None else _outcome(outcome),
        }

    async def list_policies(self, caller: Caller, params: Params) -> dict[str, Any]:
        """All policies, and what none protects."""
        parameters(params, verbs.POLICY_LIST)
        found = self._book.all
        disks = {disk.name: disk.labels for disk in self._pool.catalog.live()}
        slices, policies = Slices(), []
        for policy in list(found.readable.values()):
            await slices.rest()
            if self._book.has(policy):
                policies.append(self._object(policy))
        return {
            "policies": policies,
            "unreadable": [
                {"id": number, "name": self._book.called(number), "why": why}
                for number, why in found.unreadable.items()
            ],
            "unprotected": sorted(found.unprotected(disks)),
        }

    async def show(self, caller: Caller, params: Params) -> dict[str, Any]:
        """One policy."""
        return self._object(self._named(params, verbs.POLICY_SHOW))

    def _named(self, params: Params, verb: Verb) -> Policy:
        (name,) = parameters(params, verb)
        return self._book.named(name)

    async def explain(self, caller: Caller, params: Params) -> list[dict[str, Any]]:
        """What becomes of each snapshot of a disk."""
        (name,) = parameters(params, verbs.POLICY_EXPLAIN)
        chain = self._pool.catalog.chain(name)
        now, clock = self._runner.now_ns(), self._service.clock.believed()
        policies, slices = self._book.all, Slices()
        lines = policies.explained(self._book.taken(chain.chain.values(), now), now, clock)
        for policy in policies.readable.values():
            if policy.group:  # what keeps one member keeps the others, which are on other disks
                for verdict in await plans(self._service, policy, now, clock, slices):
                    if [keep.rule for keep in verdict.keeps] == ["group"] and verdict.taken.id in lines:
                        lines[verdict.taken.id] = line(verdict, parse_zone(policy.schedule.tz), policy.paused)
        named = {number: policy.name for number, policy in policies.readable.items()}
        return [
            {"snapshot": item.name, "policy": named.get(item.policy or 0), "text": lines[item.id]}
            for item in chain.chain.values()
            if item.id in lines
        ]

    async def preview(self, caller: Caller, params: Params) -> dict[str, Any]:
        """What the next runs would do."""
        disk, name = parameters(params, verbs.POLICY_PREVIEW)
        return self._previewed(self._book.named(name), disk)

    def _previewed(self, policy: Policy, disk: str | None = None) -> dict[str, Any]:
        now = self._runner.now_ns()
        taken = [] if disk is None else self._book.taken(self._pool.catalog.chain(disk).chain.values(), now)
        zone = parse_zone(policy.schedule.tz)

        def called(due_ns: int) -> str:
            return snapshot_name(policy, due_ns)

        runs, kept = preview(policy.id, policy.retention, policy.schedule, taken, now, called)
        return {
            "runs": [
                {
                    "due": rfc3339(run.due_ns),
                    "takes": run.takes.name,
                    "goes": [item.name for item in run.goes],
                    "kept": run.kept,
                }
                for run in runs
            ],
            "kept": [{"snapshot": item.taken.name, "text": line(item, zone)} for item in kept if not item.goes],
            "tz": policy.schedule.tz,
        }

    # Changing

    async def create(self, caller: Caller, params: Params) -> dict[str, Any]:
        """A new policy, or what it would do."""
        given = _given(params, verbs.POLICY_CREATE)
        if not given.get("preview"):
            self._pool.check_writable()
        now = self._runner.now_ns()
        policy = Policy(id=0, name=given["policy"], schedule=_new_schedule(given, now))
        policy = replace(policy, **_changes(policy, given))
        if given.get("preview"):
            return self._previewed(check_policy(policy, now))
        return await self._stored(self._book.create(policy, now))

    async def edit(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Other values for some of a policy's fields."""
        given = _given(params, verbs.POLICY_EDIT)
        self._pool.check_writable()
        policy, now = self._book.named(given["policy"]), self._runner.now_ns()
        changes = _changes(policy, given)
        if given.keys() & {"every", "at", "on", "cron", "tz"}:
            changes["schedule"] = _other_schedule(policy.schedule, given, now)
        if given.get("to") is not None:
            changes["name"] = given["to"]
        if not changes:
            raise UsageError("nothing is to be changed: say what, as in --keep-daily 30")
        return await self._stored(self._book.edit(policy, changes, now))

    async def pause(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Nothing is taken or deleted for now."""
        return await self._set_paused(self._named(params, verbs.POLICY_PAUSE), True)

    async def resume(self, caller: Caller, params: Params) -> dict[str, Any]:
        """It goes on with the next start."""
        return await self._set_paused(self._named(params, verbs.POLICY_RESUME), False)

    async def _set_paused(self, policy: Policy, paused: bool) -> dict[str, Any]:
        self._pool.check_writable()
        if policy.paused == paused:
            return self._object(policy)
        verb = "pause" if paused else "resume"
        return await self._stored(self._book.edit(policy, {"paused": paused}, self._runner.now_ns(), verb))

    async def _stored(self, policy: Policy) -> dict[str, Any]:
        await self._service.committer.commit()
        self._runner.changed()
        return self._object(policy)

    async def run(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Run it now."""
        name, clock_is_right = parameters(params, verbs.POLICY_RUN)
        self._pool.check_writable()
        policy = self._book.named(name)
        if clock_is_right:
            self._service.clock.confirm()
        return _outcome(await self._runner.run_now(policy))

    async def delete(self, caller: Caller, params: Params) -> dict[str, Any]:
        """Forget a policy; its snapshots stay."""
        (name,) = parameters(params, verbs.POLICY_DELETE)
        left = self._book.delete(name)
        await self._service.committer.commit()
        return {"snapshots": left}


def _time(at_ns: int | None) -> str | None:
    return None if at_ns is None else rfc3339(min(at_ns, TIME_NS_MAX))


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "due": _time(outcome.due_ns),
        "ended": _time(outcome.ended_ns),
        "taken": outcome.taken,
        "expired": outcome.expired,
        "failures": list(outcome.failures),
        "kept": list(outcome.kept),
    }


# What was asked for


def _given(params: Params, verb: Verb) -> Given:
    """What was given of the parameters that `verb` declares."""
    parameters(params, verb)
    return {name: value for name, value in params.items() if value is not None}


def _new_schedule(given: Given, now: int) -> Schedule:
    return parse_schedule(
        given.get("every"), given.get("at", []), given.get("on", ""), given.get("cron"), given.get("tz", "UTC"), now
    )


def _other_schedule(old: Schedule, given: Given, now: int) -> Schedule:
    """`old` with what was given; another --every or --cron begins from nothing but the zone."""
    found = dict(given)
    found.setdefault("tz", old.tz)
    if not given.keys() & {"every", "cron"}:
        if old.cron is not None:
            found["cron"] = old.cron
        else:
            found["every"] = format_span(old.every_ns or 0)
            found.setdefault("at", [f"{minute // 60:02}:{minute % 60:02}" for minute in old.at])
            found.setdefault("on", ",".join(DAYS[day] for day in old.on))
    return _new_schedule(found, now)


def _changes(policy: Policy, given: Given) -> dict[str, Any]:
    """The fields of a policy that were given, but for its name and schedule."""
    changes: dict[str, Any] = {name: given[name] for name in ("freeze", "group") if name in given}
    kept: dict[str, Any] = {rule: given[f"keep_{rule}"] for rule in RULES if f"keep_{rule}" in given}
    if "keep_for" in given:
        kept["for_ns"] = None if given["keep_for"] == OFF else parse_span(given["keep_for"])
    if kept:
        changes["retention"] = replace(policy.retention, **kept)
    if given.keys() & {"disks", "selector"}:
        changes["choice"] = _choice(policy.choice, given)
    if "when_limited" in given:
        changes["when_limited"] = _one_of(WhenLimited, "when_limited", given)
    hooks: dict[str, Any] = {name: tuple(given[name]) for name in ("pre", "post", "on_failure") if name in given}
    if "hook_limit" in given:
        hooks["limit_ns"] = parse_span(given["hook_limit"])
    if "after_pre" in given:
        hooks["after_pre"] = _one_of(AfterPre, "after_pre", given)
    if hooks:
        changes["hooks"] = replace(policy.hooks, **hooks)
    return changes


def _choice(old: Choice, given: Given) -> Choice:
    patterns = tuple(map(check_pattern, given["disks"])) if "disks" in given else old.patterns
    return Choice(patterns, parse_selector(given["selector"]) if "selector" in given else old.selector)


def _one_of(kind: type[WhenLimited] | type[AfterPre], name: str, given: Given) -> WhenLimited | AfterPre:
    try:
        return kind(given[name])
    except ValueError:
        raise BadParams(f"the parameter {name} has to be one of {', '.join(kind)}") from None
