"""Figures as inline SVG, coloured by the page's style sheet."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from typing import TYPE_CHECKING, Any

from ...files.escapes import one_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEXT, GRID, MUTED, ACCENT = "#000001", "#000002", "#000003", "#000004"
BETTER, WORSE = "#000005", "#000006"
TASKS = tuple(f"#00001{i}" for i in range(6))
#: matplotlib wants colours; the page wants style sheet variables, which differ in the dark
_VARIABLES = {TEXT: "currentColor", GRID: "var(--grid)", MUTED: "var(--muted)", ACCENT: "var(--accent)"}
_VARIABLES |= {BETTER: "var(--better)", WORSE: "var(--worse)"}
_VARIABLES |= {colour: f"var(--task{i})" for i, colour in enumerate(TASKS)}

#: the page's colours in the light, for figures that stand alone
PALETTE = {"--text": "#1c1e21", "--grid": "#d9dbdf", "--muted": "#6b7078", "--accent": "#1f6fb5"}
PALETTE |= {"--better": "#11713b", "--worse": "#b3261e"}
PALETTE |= {
    f"--task{i}": colour
    for i, colour in enumerate(("#1f6fb5", "#c05a00", "#11713b", "#8a4fb0", "#9a7b00", "#b03060"))
}

LONGEST = 32  #: characters of a name in it
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a dollar in the name of a column is a dollar
    "svg.hashsalt": "mtlweights",
    "font.size": 8.5,
    "text.color": TEXT,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": TEXT,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": TEXT,
    "ytick.labelcolor": TEXT,
}


def clipped(name: str, longest: int = LONGEST) -> str:
    """A name that fits a frame."""
    name = one_line(name)
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


@contextmanager
def drawing(
    panels: int, size: tuple[float, float], label: str, key: str
) -> Iterator[tuple[Figure, list[str]]]:
    """A figure of ``panels`` frames, ``size`` in inches; the list has its SVG once the block is left."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=size, layout="constrained")
        for axes in figure.subplots(panels, 1, sharex=True, squeeze=False)[:, 0]:
            axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
            axes.yaxis.set_major_locator(MaxNLocator(4))
        svg: list[str] = []
        yield figure, svg
        file = io.StringIO()
        with warnings.catch_warnings():  # the page's reader has the fonts that matplotlib lacks
            warnings.filterwarnings("ignore", "Glyph .* missing from font")
            figure.savefig(file, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        svg.append(inline(file.getvalue(), label, key))


def inline(svg: str, label: str, key: str) -> str:
    """An SVG file as an element of the page: no fixed size, ids of its own, the page's colours."""
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r"<svg[^>]*?viewBox=(\"[^\"]*\")[^>]*>", r"<svg viewBox=\1>", svg, count=1)
    prefix = re.sub(r"\W+", "-", key)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(f": {colour}", f": {variable}")
    return svg.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1)
