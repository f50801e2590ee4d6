"""The comparison as tables: for a terminal, as Markdown, and as the cells of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from ...files.escapes import markdown, one_line, visible
from .comparison import FEWEST_SEEDS, Column, Comparison, Estimate, Result, compare

NAMES = {
    "span_f1": "span F1",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "pearson": "Pearson r",
}
PERCENT = frozenset({"span_f1", "accuracy", "macro_f1"})
MARKS = {"better": " ▲", "worse": " ▼", "unresolved": "  "}

NOTES = (
    "Mean over seeds ± half width of its 95 % t interval; n/a with one seed; (n=2) where fewer seeds count.",
    "Change: against the single-task run of the same seed, + is better; percentage points for metrics in %.",
    "Δm: mean over tasks of that change in % of the single-task mean of the task's first metric.",
    "↓: lower is better. ▲ better, ▼ worse: the interval leaves out 0, with no correction for several arms; "
    "no mark with fewer than 3 seeds or an interval of width 0.",
)


@dataclass(frozen=True)
class Cell:
    """A number as text, and for a change its verdict."""

    text: str
    verdict: str = ""


@dataclass(frozen=True)
class Grid:
    """One table: per column a group and a label, per row an arm and its cells."""

    caption: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, list[Cell]]]

    def grouped(self) -> list[tuple[str, list[str]]]:
        """The labels, neighbours of one group together."""
        groups = groupby(self.columns, key=itemgetter(0))
        return [(group, [label for _, label in members]) for group, members in groups]


def text_tables(results: Iterable[Result]) -> str:
    """All comparisons as aligned text for a terminal.

    Raises:
        ValueError: no results, or one run given twice.
    """
    comparisons = compare(results)
    blocks = []
    for comparison in comparisons:
        heading = one_line(title(comparison, comparisons))
        blocks.append(f"{heading}\n{'=' * len(heading)}\n{one_line(summary(comparison))}")
        blocks += [_aligned(grid) for grid in grids(comparison)]
        blocks += ["\n".join(f"FAILED {line}" for line in failures(comparison))] * bool(failures(comparison))
    return visible("\n\n".join([*blocks, "\n".join(NOTES)]))


def markdown_tables(results: Iterable[Result]) -> str:
    """All comparisons as Markdown.

    Raises:
        ValueError: no results, or one run given twice.
    """
    comparisons = compare(results)
    blocks = []
    for comparison in comparisons:
        blocks += [f"## {markdown(title(comparison, comparisons))}", markdown(summary(comparison))]
        for grid in grids(comparison):
            blocks += [f"**{grid.caption}**", _piped(grid)]
        if failures(comparison):
            blocks.append(
                "Failed runs:\n\n" + "\n".join(f"- {markdown(line)}" for line in failures(comparison))
            )
    return visible("\n\n".join([*blocks, "\n".join(f"- {note}" for note in NOTES)]) + "\n")


def title(comparison: Comparison, among: list[Comparison]) -> str:
    """The problem, with the settings that tell it from other comparisons on the same problem."""
    others = [other for other in among if other.problem == comparison.problem]
    telling = [
        f"{key}={value}"
        for key, value in comparison.settings.items()
        if any(other.settings.get(key) != value for other in others)
    ]
    return comparison.problem + (f" ({', '.join(telling)})" if telling else "")


def summary(comparison: Comparison) -> str:
    """The verdict on every arm in one sentence or two."""
    found: dict[str, list[str]] = {"better": [], "worse": [], "unresolved": []}
    for row in comparison.rows:
        if row.delta is not None:
            found[row.delta.verdict].append(row.arm)
    seeds = f"{len(comparison.seeds)} seed{'s' * (len(comparison.seeds) > 1)}"
    if not any(found.values()):
        return f"{seeds}; no arm can be compared with single-task training."
    if len(comparison.seeds) == 1:
        return "One seed gives no interval, and so no verdict against single-task training."
    if len(comparison.seeds) < FEWEST_SEEDS:
        return f"{seeds} are too few for a verdict against single-task training: run {FEWEST_SEEDS} or more."
    if not found["better"] and not found["worse"]:
        return (
            f"Δm against single-task training, {seeds}: no arm is better or worse beyond its 95 % interval."
        )
    parts = [f"{verdict}: {', '.join(arms)}" for verdict, arms in found.items() if arms]
    return f"Δm against single-task training, {seeds}: {'; '.join(parts)}."


def failures(comparison: Comparison) -> list[str]:
    """One line per failed run."""
    failed = [result for result in comparison.results if result["status"] != "ok"]
    return [
        f"{result['id']}: {result['error']['type']}: {_one_line(result['error']['message'])}"
        for result in failed
    ]


def grids(comparison: Comparison) -> list[Grid]:
    """The scores, and the changes against single-task training where there are any."""
    scores = Grid("Test scores", [*map(_label, comparison.columns), ("", "runs"), ("", "failed")], [])
    tasks = [column for column in comparison.columns if column.primary]
    changes = Grid(
        "Change against single-task training (+ is better)",
        [("", "Δm %"), *(_label(c, "") for c in tasks)],
        [],
    )
    digits = {column: _digits(column, comparison) for column in comparison.columns}
    n = len(comparison.seeds)
    for row in comparison.rows:
        counts = [Cell(str(row.ok)), Cell(str(row.failed), "worse" if row.failed else "")]
        cells = [_cell(row.scores[c], c.metric in PERCENT, digits[c], n) for c in comparison.columns]
        scores.rows.append((row.arm, cells + counts))
        if row.change:
            cells = [_change(row.change[c.task], c.metric in PERCENT, digits[c], n) for c in tasks]
            changes.rows.append((row.arm, [_change(row.delta, False, 2, n), *cells]))
    return [scores, changes] if changes.rows else [scores]


def _label(column: Column, lower: str = " ↓") -> tuple[str, str]:
    """Task, and metric with unit; ``lower`` marks one whose lower values are better."""
    unit = " %" if column.metric in PERCENT else ""
    direction = "" if column.higher_is_better else lower
    return column.task, NAMES.get(column.metric, column.metric) + unit + direction


def _digits(column: Column, comparison: Comparison) -> int:
    """Decimals that give four significant digits, at most three; two for percentages."""
    means = [abs(score.mean) for row in comparison.rows if (score := row.scores[column])]
    if column.metric in PERCENT or not means or not max(means):
        return 2
    return min(3, max(0, 3 - math.floor(math.log10(max(means)))))


def _cell(value: Estimate | None, percent: bool, digits: int, seeds: int, sign: str = "") -> Cell:
    if value is None:
        return Cell("n/a")
    scale = 100 if percent else 1
    half = "n/a" if value.half is None else f"{scale * value.half:.{digits}f}"
    few = f" (n={value.n})" if value.n < seeds else ""
    return Cell(f"{scale * value.mean:{sign}.{digits}f} ± {half}{few}")


def _change(value: Estimate | None, percent: bool, digits: int, seeds: int) -> Cell:
    if value is None:
        return Cell("n/a")
    return Cell(_cell(value, percent, digits, seeds, sign="+").text + MARKS[value.verdict], value.verdict)


def _aligned(grid: Grid) -> str:
    header = [["", *(group for group, _ in grid.columns)], ["arm", *(label for _, label in grid.columns)]]
    lines = header + [[arm, *(cell.text for cell in cells)] for arm, cells in grid.rows]
    lines = [[one_line(item) for item in line] for line in lines]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "  ".join(
            item.ljust(width) if i == 0 else item.rjust(width)
            for i, (item, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
    return "\n".join([grid.caption, *text[:2], "-" * (sum(widths) + 2 * len(widths) - 2), *text[2:]])


def _piped(grid: Grid) -> str:
    header = ["arm", *(markdown(f"{group} {label}".strip()) for group, label in grid.columns)]
    lines = [header, ["---", *["---:"] * len(grid.columns)]]
    lines += [[_code(arm), *(cell.text.strip() for cell in cells)] for arm, cells in grid.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(text: str) -> str:
    """As Markdown's code, where a backtick or a pipe of the text's own would end it."""
    return f"`{text}`" if text == one_line(text) and not set(text) & set("`|") else markdown(text)


def _one_line(text: str) -> str:
    return " ".join(text.split())
