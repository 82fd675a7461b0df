"""What leaves the trash, and under which name something comes back. Names begin with their edge (X1 to X4)."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowfs.base.errors import ExistsError, UsageError
from rowfs.base.names import check_name
from rowfs.base.units import GIB
from rowfs.rules.times import DAY_NS, HOUR_NS, SECOND_NS
from rowfs.rules.trash import Entry, check_keep, for_space, free_name, overdue, undelete_name

NOON = 1_800_000_000 * SECOND_NS
WEEK = 7 * DAY_NS


def trash(*ages_days: float) -> list[Entry]:
    return [
        Entry(id=number, name=f"vm{number}", deleted_ns=NOON - int(days * DAY_NS), frees_bytes=number * GIB)
        for number, days in enumerate(ages_days, 1)
    ]


def ids(entries: list[Entry]) -> list[int]:
    return [entry.id for entry in entries]


def test_x3_things_go_when_they_were_there_for_as_long_as_told_whatever_clocks_show() -> None:
    assert ids(overdue(trash(9, 8, 7, 6.9, 0), WEEK, NOON)) == [1, 2, 3]
    assert ids(overdue(trash(7), WEEK, NOON - 1)) == []


def test_what_is_dated_ahead_goes_with_the_next_and_not_before() -> None:
    entries = trash(9, -5000, 8, 1, -5000)
    assert ids(overdue(entries, WEEK, NOON)) == [1, 2, 3]
    assert ids(overdue(entries, WEEK, NOON + WEEK)) == [1, 2, 3, 4]


def test_x2_each_goes_by_itself_and_what_cannot_go_stays_on_the_list() -> None:
    entries = trash(9, 8, 7)
    assert ids(overdue(entries[1:], WEEK, NOON)) == [2, 3]
    entries[0] = Entry(id=1, name="a", deleted_ns=0, kept_by="a hold")
    assert ids(overdue(entries, WEEK, NOON)) == [2, 3]


def test_x4_when_space_runs_out_the_oldest_go_first_and_no_more_than_needed() -> None:
    entries = trash(3, 2, 1, 0)
    assert ids(for_space(entries[::-1], 3 * GIB)) == [1, 2]
    assert ids(for_space(entries, 0)) == []
    assert ids(for_space(entries, 100 * GIB)) == [1, 2, 3, 4]
    kept = [Entry(id=1, name="a", deleted_ns=0, frees_bytes=9 * GIB, kept_by="a hold"), *entries[1:]]
    assert ids(for_space(kept, GIB)) == [2]


def test_e3_what_comes_back_is_asked_for_the_set_at_once() -> None:
    assert ids(for_space(trash(3, 2, 1), 5 * GIB, lambda chosen: 5 * GIB if len(chosen) == 2 else 0)) == [1, 2]


def test_what_comes_back_has_its_own_name_or_the_one_asked_for() -> None:
    entry = trash(1)[0]
    assert undelete_name(entry, None, {"vm2"}) == "vm1"
    assert undelete_name(entry, "old", {"vm1"}) == "old"
    with pytest.raises(UsageError):
        undelete_name(entry, "a/b", ())


def test_x1_a_name_that_is_taken_is_refused_and_another_offered() -> None:
    with pytest.raises(ExistsError, match="^vm1 is the name of another now: .* call it vm1-restored-2$") as caught:
        undelete_name(trash(1)[0], None, {"vm1", "vm1-restored"})
    assert caught.value.errno == errno.EEXIST
    with pytest.raises(ExistsError):
        undelete_name(trash(1)[0], "vm2", {"vm2"})


@given(name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255), taken=st.integers(0, 3))
def test_an_offered_name_is_one_that_is_allowed_and_free(name: str, taken: int) -> None:
    try:
        check_name(name)
    except UsageError:
        return
    names = {name}
    for _ in range(taken + 1):
        offered = check_name(free_name(name, names))
        assert offered not in names
        names.add(offered)


@pytest.mark.parametrize("keep_ns", [0, -DAY_NS, HOUR_NS - 1, 10**6 * DAY_NS])
def test_the_trash_keeps_things_for_an_hour_at_least(keep_ns: int) -> None:
    with pytest.raises(UsageError):
        check_keep(keep_ns)
    assert check_keep(WEEK) == WEEK
