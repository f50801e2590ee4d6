"""The map of the package, drawn from the import contract in setup.cfg, and the table of its rooms.

``python docs/rooms.py`` rewrites docs/rooms.svg and the table in docs/architecture.md; a test compares them.
An import that runs up is an error.
"""

from __future__ import annotations

import ast
import configparser
from html import escape
from pathlib import Path
from textwrap import wrap

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mtlweights"
DRAWING, PAGE = ROOT / "docs" / "rooms.svg", ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- rooms -->\n", "<!-- end of rooms -->\n"
WIDTH, GAP, ACROSS = 900, 34, 16  # of the drawing, between floors, between boxes
HEAD, ROW = 34, 14  # heights of a box's name and of a line below it
BOX, LINE = "#2f5d8a", "#76808c"


def floors(container: str = "mtlweights") -> list[list[str]]:
    """The rooms of a package, top floor first, as the contract has them."""
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for section in config.values():
        if section.get("type") == "layers" and section["containers"].split() == [container]:
            lines = section["layers"].strip().splitlines()
            return [[room.strip() for room in line.split("|")] for line in lines]
    return []


def summary(room: str) -> str:
    """The first sentence of a room's docstring."""
    folder = PACKAGE / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return doc.partition("\n")[0].partition(". ")[0].rstrip(".").replace("``", "`")


def arrows() -> dict[str, set[str]]:
    """Room -> the rooms that its files import, read from their text."""
    place = {room: k for k, floor in enumerate(floors()) for room in floor}
    found: dict[str, set[str]] = {room: set() for room in place}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        room = parts[0]
        if room == "__init__":
            continue
        for target in _imported(path, parts[:-1]):
            if target == room or target not in place:
                continue
            if place[target] <= place[room]:
                raise ValueError(f"{path.relative_to(ROOT)} imports {target}, which is not below {room}.")
            found[room].add(target)
    return found


def _imported(path: Path, package: tuple[str, ...]) -> set[str]:
    """The first names below ``mtlweights`` that a file imports by a relative path."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package[: len(package) - node.level + 1]
            whole = (*base, *(node.module or "").split(".")) if node.module else base
            names |= {whole[0]} if whole else {alias.name for alias in node.names}
    return {"balancer" if name == "Balancer" else name for name in names}


def table() -> str:
    """The rooms as a Markdown table, top floor first."""
    lines = ["| room | what it is | imports |", "|---|---|---|"]
    found, order = arrows(), [room for floor in floors() for room in floor]
    for room in order:
        below = ", ".join(f"`{other}`" for other in order if other in found[room]) or "nothing of ours"
        said = summary(room).replace("|", "\\|")
        lines.append(f"| `{room}` | {said} | {below} |")
    return "\n".join(lines) + "\n"


def drawing() -> str:
    """The map as SVG: a row of boxes per floor, an arrow per import of one room by another.

    Anyone may import the lowest floor: those arrows are left out.
    """
    levels, boxes, text, y = floors(), {}, {}, 4.0
    for floor in levels:
        width = (WIDTH - ACROSS * (len(floor) + 1)) / len(floor)
        text |= {room: _lines(room, int(width / 6)) for room in floor}
        height = HEAD + ROW * max(len(text[room]) for room in floor)
        for i, room in enumerate(floor):
            boxes[room] = (ACROSS + i * (width + ACROSS), y, width, height)
        y += height + GAP
    pairs = [(a, b) for a, below in arrows().items() for b in below if b not in levels[-1]]
    lines = [_arrow(boxes[a], boxes[b], k) for k, (a, b) in enumerate(sorted(pairs))]
    whole = y - GAP + 4
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {whole:.0f}" width="{WIDTH}" '
            f'height="{whole:.0f}" role="img" aria-label="The rooms of the package, and who imports whom" '
            'font-family="Helvetica, Arial, \'DejaVu Sans\', sans-serif" font-size="12">',
            '<defs><marker id="tip" viewBox="0 0 10 10" refX="8.5" refY="5" markerWidth="6" markerHeight="6" '
            f'orient="auto"><path d="M0 0.8 L9.5 5 L0 9.2 Z" fill="{LINE}"/></marker></defs>',
            f'<g fill="none" stroke="{LINE}" stroke-width="1.2" marker-end="url(#tip)">',
            *lines,
            "</g>",
            *(_box(room, text[room], *place) for room, place in boxes.items()),
            "</svg>\n",
        ]
    )


def _arrow(above: tuple[float, ...], below: tuple[float, ...], k: int) -> str:
    """As upright as the two boxes allow, the k-th a little beside the others."""
    aside = 9 * (k % 7 - 3)
    start = _within(above, below[0] + below[2] / 2 + aside)
    end = _within(below, start)
    return f'<path d="M{start:.0f} {above[1] + above[3]:.0f} L{end:.0f} {below[1] - 1:.0f}"/>'


def _within(box: tuple[float, ...], x: float) -> float:
    return min(max(x, box[0] + ACROSS), box[0] + box[2] - ACROSS)


def _lines(room: str, width: int) -> list[str]:
    """What stands below a room's name: what it is, and the order inside it where that is laid down."""
    inner = " > ".join(" | ".join(floor) for floor in floors(f"mtlweights.{room}"))
    return wrap(summary(room).replace("`", ""), width) + wrap(inner, width)


def _box(room: str, said: list[str], x: float, y: float, width: float, height: float) -> str:
    text = [f'<text x="{x + 10:.0f}" y="{y + 19:.0f}" font-size="15" font-weight="bold">{room}</text>']
    for k, line in enumerate(said, 1):
        text.append(f'<text x="{x + 10:.0f}" y="{y + 22 + ROW * k:.0f}">{escape(line)}</text>')
    rect = f'<rect x="{x:.0f}" y="{y:.0f}" width="{width:.0f}" height="{height:.0f}" rx="6" fill="{BOX}"/>'
    return f'{rect}\n<g fill="#ffffff">' + "".join(text) + "</g>"


def replaced(text: str) -> str:
    """``text`` with the table between the two markers made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after


if __name__ == "__main__":
    DRAWING.write_text(drawing(), encoding="utf-8")
    PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
