"""What the page shows, as files of their own: figures as SVG, tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...files.atomic import write
from ...files.escapes import visible
from ..runspec import slug
from .drawing import PALETTE
from .table import Grid, piped

FIGURES, TABLES = "figures", "tables"
_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_LATEX |= {
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "Δ": r"$\Delta$",
    "▲": r"$\uparrow$",
}
_LATEX |= {"▼": r"$\downarrow$", "↓": r"$\downarrow$"}


def write_parts(sections: Sequence[Mapping[str, Any]], folder: Path) -> None:
    """Write ``folder/figures`` and ``folder/tables`` anew.

    Raises:
        OSError: they cannot be written.
    """
    for name in (FIGURES, TABLES):
        shutil.rmtree(folder / name, ignore_errors=True)
    for section in sections:
        start = f"{section['id']}-{slug(section['title'])}"
        figures = {
            "verdicts": section.get("figure"),
            "trade-off": section.get("trade_off"),
            "cost": section.get("cost"),
        }
        for kind in ("tuning", "curves", "weights"):
            figures |= {f"{kind}-{slug(arm)}": svg for arm, svg in section.get(kind, {}).items()}
        figures |= {slug(caption): svg for caption, svg in section.get("figures", {}).items()}
        for name, svg in figures.items():
            if svg:
                _write(folder / FIGURES / f"{start}-{name}.svg", _standalone(svg))
        for number, grid in enumerate(section.get("grids", ()), 1):
            stem = folder / TABLES / f"{start}-{number}-{slug(grid.caption)[:40].strip('-')}"
            _write(stem.with_name(f"{stem.name}.csv"), as_csv(grid))
            _write(stem.with_name(f"{stem.name}.md"), f"**{grid.caption}**\n\n{piped(grid)}\n")
            _write(stem.with_name(f"{stem.name}.tex"), as_latex(grid))


def as_csv(grid: Grid) -> str:
    """A table as CSV, task and label of a column in one heading."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["arm", *_heads(grid)])
    for arm, cells in grid.rows:
        # a name that starts so would be a formula to a spreadsheet
        safe = f"'{arm}" if arm[:1] in "=+-@" else arm
        writer.writerow([safe, *(cell.text.strip() for cell in cells)])
    return visible(out.getvalue())


def as_latex(grid: Grid) -> str:
    """A table as a LaTeX tabular, with the rules of the booktabs package."""
    lines = [rf"\begin{{tabular}}{{l{'r' * len(grid.columns)}}}", r"\toprule"]
    lines.append(" & ".join(["arm", *map(_latex, _heads(grid))]) + r" \\")
    lines.append(r"\midrule")
    lines += [
        " & ".join([_latex(arm), *(_latex(c.text.strip()) for c in cells)]) + r" \\"
        for arm, cells in grid.rows
    ]
    return visible("\n".join([f"% {grid.caption}", *lines, r"\bottomrule", r"\end{tabular}", ""]))


def _heads(grid: Grid) -> list[str]:
    return [f"{group} {label}".strip() for group, label in grid.columns]


def _latex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def _standalone(svg: str) -> str:
    """A figure of the page as a file: its colours and its size are its own then."""
    for variable, colour in PALETTE.items():
        svg = svg.replace(f"var({variable})", colour)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg).groups()  # type: ignore[union-attr]
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return svg.replace(
        "<svg", f'<svg {names} width="{width}" height="{height}" color="{PALETTE["--text"]}"', 1
    )


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, text)
