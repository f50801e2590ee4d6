"""The README's headline, made from the committed comparison on real data: its first figure and its verdicts.

``docs/generate.py`` writes both into README.md and README.zh.md; a test compares them.
"""

from __future__ import annotations

import csv
import html
import re
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "real"
FIGURE = Path(__file__).parent / "headline.svg"
MINUS = "\N{MINUS SIGN}"
BACKGROUND = "#ffffff"  # the figure's own is none, and its letters are dark

COLUMNS = {
    "en": ("problem", "better", "equal", "worse", "unresolved", "all arms against single-task training"),
    "zh": ("问题", "更好", "相等", "更差", "未决", "所有方法相对单任务训练"),
}
VERDICTS = ("better", "equal", "worse", "unresolved")


def problems() -> dict[str, int]:
    """Problem -> its number on the page."""
    page = (RESULTS / "page.html").read_text(encoding="utf-8")
    found = re.findall(r'<h2 id="problem-(\d+)">(.*?)</h2>', page)
    return {html.unescape(name): int(number) for number, name in found}


def rows(number: int, table: str) -> list[dict[str, str]]:
    """A table of a problem, by what its name begins with."""
    (path,) = RESULTS.glob(f"tables/problem-{number}-*-{table}-*.csv")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def verdicts(number: int) -> dict[str, list[str]]:
    """Verdict against equal weights -> strategies, single-task training left out."""
    found: dict[str, list[str]] = {verdict: [] for verdict in VERDICTS}
    for row in rows(number, "against-equal"):
        if row["arm"] != "single":
            found[row["verdict"]].append(row["arm"])
    return found


def table(language: str) -> str:
    """A line per problem, as Markdown."""
    lines = ["| " + " | ".join(COLUMNS[language]) + " |", "|---" * len(COLUMNS[language]) + "|"]
    for name, number in problems().items():
        found = verdicts(number)
        cells = [", ".join(f"`{arm}`" for arm in found[verdict]) or "-" for verdict in VERDICTS[:3]]
        gains = [float(row["Δm %"].split()[0]) for row in rows(number, "change-against-single")]
        spread = f"{min(gains):+.1f} … {max(gains):+.1f}".replace("-", MINUS)
        lines.append(f"| `{name}` | " + " | ".join([*cells, str(len(found["unresolved"])), spread]) + " |")
    return "\n".join(lines) + "\n"


def figure() -> str:
    """The first figure of the page, on a white ground."""
    (path,) = RESULTS.glob("figures/problem-1-*-verdicts.svg")
    text = path.read_text(encoding="utf-8")
    head, _, rest = text.partition("<defs>")
    return f'{head}<rect width="100%" height="100%" fill="{BACKGROUND}"/>\n <defs>{rest}'
