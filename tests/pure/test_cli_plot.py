"""The picture of a chain, and what `plot` does with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rowfs.base.names import printable
from rowfs.cli.chart import draw
from tests.pure.test_cli_fakes import World

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[World]:
    made = World(tmp_path, monkeypatch, capfd)
    with made.daemon:
        yield made


def step(name: str | None, after: str | None = None, **fields: Any) -> dict[str, Any]:
    made = {
        "snapshot": name,
        "kind": "user" if name is not None else "disk",
        "consistency": "crash",
        "created": "2026-11-20T14:25:01.000000Z",
        "size_bytes": 20 << 30,
        "mapped_bytes": 4096,
        "written_bytes": 1 << 20,
        "freed_if_deleted_bytes": 0 if name is not None else None,
        "locked": False,
        "after": None if after is None else {"disk": "vm1", "snapshot": after},
        "rolled_back": False,
    }
    return made | fields


def clone(name: str, after: str) -> dict[str, Any]:
    after_shown = {"disk": "vm1", "snapshot": after}
    return {"disk": name, "deleted": False, "size_bytes": 1, "mapped_bytes": 4096, "after": after_shown}


HISTORY = {
    "disk": "vm1",
    "steps": [
        step("a", after=None, locked=True),
        step("b", after="a"),
        step("before-rollback", after="b", kind="rollback"),
        step("c", after="a", rolled_back=True),
        step(None, after="c"),
    ],
    "clones": [clone("ci-01", "a"), clone("ci-02", "c")],
}


def texts(picture: str) -> list[str]:
    return [found.text or "" for found in Xml.fromstring(picture).iter(f"{SVG}text")]


def dots(picture: str) -> list[tuple[int, int]]:
    """Column and row of each thing, from where its mark is."""
    places = []
    for group in Xml.fromstring(picture).findall(f"{SVG}g/{SVG}g"):
        mark = next(item for item in group if item.tag in (f"{SVG}circle", f"{SVG}rect"))
        x = int(mark.get("cx") or int(mark.get("x", "0")) + 5)
        y = int(mark.get("cy") or int(mark.get("y", "0")) + 5)
        places.append(((x - 26) // 22, (y - 96) // 40))
    return places


def test_a_picture_has_a_row_for_each_and_a_column_for_each_branch() -> None:
    picture = draw(HISTORY)
    names = [name for name in texts(picture) if name.startswith("@") or name in ("ci-01", "ci-02", "vm1")]
    assert names == ["@a", "ci-01", "@b", "@before-rollback", "@c", "ci-02", "vm1"]
    assert dots(picture) == [(0, 0), (1, 1), (0, 2), (0, 3), (2, 4), (0, 5), (2, 6)]
    dashed = [way for way in Xml.fromstring(picture).iter(f"{SVG}path") if way.get("stroke-dasharray")]
    assert len(dashed) == 3 and len(list(Xml.fromstring(picture).iter(f"{SVG}path"))) == 6
    assert any("crash, locked" in text for text in texts(picture))
    assert {"MAPPED", "WRITTEN", "FREES", "4.0K", "1.0M", "0B"} <= set(texts(picture))


def test_what_a_chain_was_cloned_from_is_at_its_top() -> None:
    history = {"disk": "vm1", "steps": [step("own", after="x") | {"after": {"disk": "golden", "snapshot": "v1"}}]}
    picture = draw(history | {"clones": []})
    assert texts(picture).index("golden@v1") < texts(picture).index("@own")
    assert dots(picture) == [(0, 0), (1, 1)]


ODD = ["<img onerror=x>", "a&b\"'", "\udcff\x1b[2J\ufffe\uffff", "\n"]
NAMES = st.text(min_size=1, max_size=300) | st.sampled_from(ODD)


@settings(deadline=None, max_examples=50)
@given(NAMES, NAMES)
def test_whatever_things_are_called_the_picture_is_xml_and_says_so(name: str, disk: str) -> None:
    history = {"disk": disk, "steps": [step(name), step(None)], "clones": [clone(disk, name)]}
    picture = draw(history)
    picture.encode()
    titles = [found.text for found in Xml.fromstring(picture).iter(f"{SVG}title")]
    assert titles[1] is not None and titles[1].startswith(f"@{printable(name)}: ")
    assert not [item for item in Xml.fromstring(picture).iter() if item.tag.endswith(("script", "img", "a"))]


def test_plot_writes_a_file_once(world: World, tmp_path: Path) -> None:
    world.answer(history=HISTORY)
    file = tmp_path / "chain.svg"
    code, out, _ = world.run("plot", world.mount / "vm1", "-o", file)
    assert (code, out) == (0, f"{file}: 4 snapshots of {world.mount}/vm1\n")
    assert file.read_text() == draw(HISTORY)
    assert world.asked() == [("history", {"disk": "vm1"})]
    file.write_text("mine")
    code, _, err = world.run("plot", world.mount / "vm1", "-o", file)
    assert (code, err) == (1, f"rowfs: {file} is there already: --force replaces it\n")
    assert file.read_text() == "mine"
    assert world.run("plot", world.mount / ".snapshots" / "vm1", "-o", file, "--force")[0] == 0
    assert file.read_text() == draw(HISTORY)
    assert "cannot write" in world.run("plot", world.mount / "vm1", "-o", tmp_path / "no" / "x.svg")[2]


def test_plot_prints_the_picture_or_what_it_is_drawn_from(world: World) -> None:
    world.answer(history=HISTORY)
    assert world.run("plot", world.mount / "vm1")[1] == draw(HISTORY)
    assert json.loads(world.run("plot", world.mount / "vm1", "--json")[1]) == HISTORY
    assert world.run("plot", world.mount / "vm1@a")[0] == 2
