"""The picture of a chain, as SVG: pure, from what the daemon tells of it. xml.etree sees to what names may contain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree import ElementTree as Xml

from rowfs.base.names import printable
from rowfs.base.units import format_size
from rowfs.cli.output import NOTHING, local_time, size_or_nothing

ROW, TOP, LANE, MARGIN, DOT = 40, 76, 22, 20, 6  # pixels
NAME_WIDTH, COLUMN, BAR = 330, 140, 80
NAME_CHARACTERS = 40
FREES = "freed_if_deleted_bytes"
COLUMNS = (("mapped_bytes", "MAPPED", "#8aa4c8"), ("written_bytes", "WRITTEN", "#3d6fb4"), (FREES, "FREES", "#c7762c"))
LEGEND = "circle: snapshot, ring: the disk now, square: clone, dashed: taken back or cloned"
INK, FAINT, PAPER = "#1f2328", "#6b7280", "#ffffff"


@dataclass
class Node:
    """One row: a snapshot, the disk, a clone, or what the chain was cloned from."""

    name: str
    about: str
    shape: str  # circle, ring, square, hollow
    sizes: Mapping[str, int | None] = field(default_factory=dict)
    parent: Node | None = None
    dashed: bool = False  # not written on from its parent, but taken back to it, or cloned
    row: int = 0
    lane: int = 0


def draw(history: Mapping[str, Any]) -> str:
    """The picture of what `history` on the socket answers."""
    nodes = _nodes(history)
    _place(nodes)
    lanes = 1 + max((node.lane for node in nodes), default=0)
    text_x = MARGIN + lanes * LANE + 8
    width, height = text_x + NAME_WIDTH + len(COLUMNS) * COLUMN + MARGIN, TOP + len(nodes) * ROW + MARGIN
    size = {"width": f"{width}", "height": f"{height}", "viewBox": f"0 0 {width} {height}"}
    svg = Xml.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", "role": "img"} | size)
    title = f"The chain of {printable(history['disk'])}"
    Xml.SubElement(svg, "title").text = title
    Xml.SubElement(svg, "rect", width="100%", height="100%", fill=PAPER)
    drawing = Xml.SubElement(svg, "g", {"font-family": "sans-serif", "font-size": "12", "fill": INK})
    _text(drawing, MARGIN, 26, title, bold=True, px=15)
    _text(
        drawing, MARGIN, 44, "circle: snapshot, ring: the disk now, square: clone, dashed: taken back or cloned", FAINT
    )
    for number, (_, head, _) in enumerate(COLUMNS):
        _text(drawing, text_x + NAME_WIDTH + number * COLUMN, TOP - 10, head, FAINT)
    for node in nodes:
        if node.parent is not None:
            _edge(drawing, node.parent, node)
    most = {key: max((node.sizes.get(key) or 0 for node in nodes), default=0) for key, _, _ in COLUMNS}
    for node in nodes:
        _row(drawing, node, text_x, most)
    Xml.indent(svg)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + Xml.tostring(svg, encoding="unicode") + "\n"


# What there is


def _nodes(history: Mapping[str, Any]) -> list[Node]:
    """The rows from top to bottom: each below what it goes on from, clones right below."""
    named: dict[tuple[str, str], Node] = {}
    found: list[Node] = []
    cloned: dict[str, list[Mapping[str, Any]]] = {}
    for clone in history["clones"]:
        cloned.setdefault(clone["after"]["snapshot"], []).append(clone)
    for step in history["steps"]:
        node = _step_node(history["disk"], step)
        after = step["after"]
        if after is not None:
            key = after["disk"], after["snapshot"]
            if key not in named:
                named[key] = Node(f"{after['disk']}@{after['snapshot']}", "what it was cloned from", "hollow")
                found.insert(0, named[key])
            node.parent = named[key]
            node.dashed = step["rolled_back"] or after["disk"] != history["disk"]
        found.append(node)
        if step["snapshot"] is not None:
            named[history["disk"], step["snapshot"]] = node
            for clone in cloned.get(step["snapshot"], []):
                about = "clone, deleted, its snapshots stay" if clone["deleted"] else "clone"
                found.append(Node(clone["disk"], about, "square", _sizes(clone), node, True))
    return found


def _step_node(disk: str, step: Mapping[str, Any]) -> Node:
    when = local_time(step["created"])
    if step["snapshot"] is None:
        return Node(disk, f"the disk, {format_size(step['size_bytes'])}, made {when}", "ring", _sizes(step))
    kinds = [step["consistency"], *([] if step["kind"] == "user" else [step["kind"]])]
    kinds += ["locked"] if step["locked"] else []
    kinds += ["written after a rollback"] if step["rolled_back"] else []
    return Node(f"@{step['snapshot']}", f"{when}, {', '.join(kinds)}", "circle", _sizes(step))


def _sizes(item: Mapping[str, Any]) -> dict[str, int | None]:
    return {key: item.get(key) for key, _, _ in COLUMNS}


def _place(nodes: Sequence[Node]) -> None:
    """Rows in order; a lane for each line of nodes that go on from each other, the leftmost that is free."""
    last_child: dict[int, int] = {}
    for row, node in enumerate(nodes):
        node.row = row
        if node.parent is not None:
            last_child[id(node.parent)] = row
    busy_until: list[int] = []  # by lane: the row up to which a line runs in it
    for node in nodes:
        first = node.row
        if node.parent is not None:
            first = node.parent.row
            if not node.dashed:
                node.lane = node.parent.lane
                busy_until[node.lane] = max(busy_until[node.lane], last_child.get(id(node), node.row))
                continue
            first += 1
        free = [lane for lane, until in enumerate(busy_until) if until < first]
        node.lane = free[0] if free else len(busy_until)
        busy_until += [0] * (node.lane + 1 - len(busy_until))
        busy_until[node.lane] = last_child.get(id(node), node.row)


# How it looks


def _x(node: Node) -> int:
    return MARGIN + node.lane * LANE + DOT


def _y(node: Node) -> int:
    return TOP + node.row * ROW + ROW // 2


def _edge(drawing: Xml.Element, parent: Node, node: Node) -> None:
    x, y, to_x, to_y = _x(parent), _y(parent), _x(node), _y(node)
    bend = y + ROW // 2
    way = (
        f"M {x} {y} C {x} {bend}, {to_x} {y}, {to_x} {bend} L {to_x} {to_y}"
        if x != to_x
        else f"M {x} {y} L {to_x} {to_y}"
    )
    style = {"stroke-dasharray": "4 3"} if node.dashed else {}
    Xml.SubElement(drawing, "path", {"d": way, "fill": "none", "stroke": FAINT, "stroke-width": "1.5", **style})


def _row(drawing: Xml.Element, node: Node, text_x: int, most: Mapping[str, int]) -> None:
    row = Xml.SubElement(drawing, "g")
    Xml.SubElement(row, "title").text = f"{printable(node.name)}: {node.about}"
    _dot(row, node)
    name = printable(node.name)
    short = name if len(name) <= NAME_CHARACTERS else f"{name[: NAME_CHARACTERS - 1]}…"
    _text(row, text_x, _y(node) - 2, short, bold=node.shape != "hollow")
    _text(row, text_x, _y(node) + 13, node.about, FAINT, px=10)
    for number, (key, _, colour) in enumerate(COLUMNS):
        size = node.sizes.get(key)
        x = text_x + NAME_WIDTH + number * COLUMN
        if node.shape == "hollow" or (size is None and key != FREES):
            continue
        shown = size_or_nothing(size)
        _text(row, x, _y(node) - 2, shown, FAINT if shown == NOTHING else INK)
        if size:
            bar = max(1, BAR * size // most[key])
            Xml.SubElement(row, "rect", x=f"{x}", y=f"{_y(node) + 4}", width=f"{bar}", height="6", fill=colour)


def _dot(row: Xml.Element, node: Node) -> None:
    x, y = _x(node), _y(node)
    filled = {"circle": INK, "square": FAINT}.get(node.shape, PAPER)
    paint = {"fill": filled, "stroke": INK, "stroke-width": "2.5" if node.shape == "ring" else "1.5"}
    if node.shape == "square":
        place = {"x": f"{x - DOT + 1}", "y": f"{y - DOT + 1}", "width": f"{2 * DOT - 2}", "height": f"{2 * DOT - 2}"}
        Xml.SubElement(row, "rect", place | paint)
    else:
        Xml.SubElement(row, "circle", {"cx": f"{x}", "cy": f"{y}", "r": f"{DOT - 1}"} | paint)


def _text(into: Xml.Element, x: int, y: int, text: str, colour: str = INK, bold: bool = False, px: int = 12) -> None:
    style = {"font-weight": "bold"} if bold else {}
    found = Xml.SubElement(into, "text", {"x": f"{x}", "y": f"{y}", "fill": colour, "font-size": f"{px}", **style})
    found.text = text
