"""Labels, selectors and patterns of disks."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.errors import UsageError
from rowfs.rules.selectors import (
    LABELS_MAX,
    Choice,
    Labels,
    Op,
    Selector,
    Term,
    changed,
    check_key,
    check_labels,
    check_value,
    parse_changes,
    parse_choice,
    parse_selector,
)

DB: Labels = {"env": "prod", "owner": "db", "tier": ""}

KEYS = st.sampled_from(["env", "owner", "team/x", "a.b-c_d", "0"])
VALUES = st.text(st.characters(exclude_categories=["C", "Z"], exclude_characters=",()"), max_size=6)


@pytest.mark.parametrize("key", ["env", "Env2", "team/owner", "a.b_c-d", "0", "x" * 63])
def test_a_label_is_called_so(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "-a", "a-", "a b", "ä", "a=b", "a,b", "!a", "x" * 64, "a\n", "/", "in in"])
def test_a_label_is_not_called_so(key: str) -> None:
    with pytest.raises(UsageError):
        check_key(key)


@pytest.mark.parametrize("value", ["", "prod", "a b", "a=b", "ä", "!x", "2026-11-20T10:00", "x" * 255])
def test_a_value_is_almost_any_text(value: str) -> None:
    assert check_value("env", value) == value


@pytest.mark.parametrize("value", ["a,b", "(a", "a)", " a", "a ", "a\nb", "\x1b", "\udcff", "x" * 256])
def test_a_value_is_not(value: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_value("env", value)
    assert "\n" not in str(caught.value)


def test_labels_are_set_changed_and_taken_away() -> None:
    changes = parse_changes(["env=test", "owner-", "note=a=b"])
    assert changes == {"env": "test", "owner": None, "note": "a=b"}
    assert changed(DB, changes) == {"env": "test", "note": "a=b", "tier": ""}
    assert changed({}, parse_changes(["gone-"])) == {}


@pytest.mark.parametrize("words", [["env"], ["=x"], ["env=a", "env=b"], ["env=a", "env-"], [""], ["-"], ["a b=c"]])
def test_what_changes_no_label_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError):
        parse_changes(words)


def test_labels_are_at_most_64() -> None:
    full = {f"k{number}": "" for number in range(LABELS_MAX)}
    assert check_labels(full) == full
    assert len(changed(full, {"k0": None, "new": "x"})) == LABELS_MAX
    with pytest.raises(UsageError, match="at most|the most"):
        changed(full, {"new": "x"})


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("env=prod", True),
        ("env==prod", True),
        ("env = prod", True),
        ("env=test", False),
        ("env!=test", True),
        ("env!=prod", False),
        ("gone!=prod", True),
        ("env in (prod, test)", True),
        ("env in (test)", False),
        ("env notin (test,dev)", True),
        ("gone notin (a)", True),
        ("env", True),
        ("gone", False),
        ("!gone", True),
        ("! env", False),
        ("tier=", True),
        ("tier in (,x)", True),
        ("env=prod,owner=db", True),
        ("env=prod, owner in (a,db) ,!gone", True),
        ("env=prod,owner=web", False),
        ("in in (x)", False),
    ],
)
def test_a_selector_asks_for_all_its_terms(text: str, chosen: bool) -> None:
    assert parse_selector(text).matches(DB) is chosen


@pytest.mark.parametrize(
    "text",
    [",", "env,", "=", "=prod", "env in", "env in prod", "env in (a", "env in a)", "env in ((a))", "e v", "!", "!!env"],
)
def test_what_asks_nothing_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_selector(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  "])
def test_p1_an_empty_selector_matches_no_disk(text: str) -> None:
    assert not parse_selector(text).matches(DB)
    assert not parse_selector(text).matches({})
    assert not parse_choice([], text).chooses("vm1", DB)
    assert str(parse_choice([], text)) == "no disk"


@pytest.mark.parametrize(
    ("patterns", "selector", "chosen"),
    [
        (["vm*"], "", True),
        (["VM*"], "", False),
        (["web", "vm?"], "", True),
        (["*"], "", True),
        (["vm[2-9]"], "", False),
        (["vm*"], "env=prod", True),
        (["vm*"], "env=test", False),
        (["web"], "env=prod", False),
        ([], "env=prod", True),
    ],
)
def test_disks_are_chosen_by_name_and_label(patterns: list[str], selector: str, chosen: bool) -> None:
    assert parse_choice(patterns, selector).chooses("vm1", DB) is chosen


@pytest.mark.parametrize("pattern", ["", "a/b", "vm1@a", "x" * 256, ".vm", "\ud800"])
def test_a_pattern_that_no_name_can_match_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        parse_choice([pattern], "")


def test_a_choice_says_what_it_chooses() -> None:
    assert str(parse_choice(["vm*", "db"], "env=prod,!old")) == "vm* or db with env=prod,!old"
    assert str(Choice(("*",))) == "*"


TERMS = st.builds(Term, KEYS, st.sampled_from([Op.HAS, Op.HAS_NOT])) | st.builds(
    Term, KEYS, st.sampled_from([Op.IS, Op.IS_NOT]), st.lists(VALUES, min_size=1, max_size=3).map(tuple)
)


@given(terms=st.lists(TERMS, max_size=4).map(tuple))
def test_a_shown_selector_can_be_typed(terms: tuple[Term, ...]) -> None:
    selector = Selector(terms)
    assert parse_selector(str(selector)) == selector


@given(terms=st.lists(TERMS, min_size=1, max_size=4).map(tuple), labels=st.dictionaries(KEYS, VALUES))
def test_a_selector_agrees_with_a_plain_reading_of_it(terms: tuple[Term, ...], labels: dict[str, str]) -> None:
    for term in terms:
        value = labels.get(term.key)
        wanted = {"in": value in term.values, "notin": value not in term.values, "has": value is not None}
        wanted["lacks"] = not wanted["has"]
        if not wanted[str(term.op)]:
            assert not Selector(terms).matches(labels)
            return
    assert Selector(terms).matches(labels)


@settings(deadline=None)
@given(text=st.text(st.sampled_from("env!=, ()in-\n\0ä"), max_size=20) | st.text(max_size=20))
def test_any_text_is_a_selector_or_a_usage_error(text: str) -> None:
    with suppress(UsageError):
        parse_selector(text).matches(DB)
