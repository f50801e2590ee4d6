"""The comparison as tables: for a terminal, as Markdown, and as the cells of the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from ...files.escapes import markdown, one_line, visible
from ..protocol import Protocol
from ..runspec import SINGLE
from ..selection import Choice
from ..statistics import VERDICTS, Verdict
from ..statistics.verdicts import FEWEST_SEEDS
from .comparison import Column, Comparison, Estimate, Result, compare
from .inference import DELTA, called, references, warnings

NAMES = {
    "span_f1": "span F1",
    "accuracy": "accuracy",
    "macro_f1": "macro F1",
    "rmse": "RMSE",
    "pearson": "Pearson r",
    "mae": "MAE",
    "r2": "R²",
    "rrmse": "RRMSE",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "relative_l2": "relative L2 error",
    "mse": "MSE",
}
PERCENT = frozenset({"span_f1", "accuracy", "macro_f1"})
MARKS = {"better": " ▲", "worse": " ▼", "equal": " =", "unresolved": "  "}

NOTES = (
    "Mean over seeds ± half width of its 95 % t interval; n/a with one seed; (n=2) where fewer seeds count.",
    "Change: against the single-task run of the same seed, + is better; percentage points for metrics in %.",
    "Δm: mean over tasks of that change in % of the single-task mean of the task's first metric.",
    "Verdicts: paired by seed, in % of single-task training, whose own uncertainty is in them; Holm over the "
    "arms. ▲ better, ▼ worse: the interval leaves out 0. = equal: it lies within the smallest difference "
    "that matters. No mark: unresolved, or fewer than 3 seeds. more: seeds that would resolve it.",
    "test set: half width of the 95 % interval of Δm when the test examples are drawn again, paired.",
    "↓: lower is better. A run that diverged counts as the worst there is.",
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


def text_tables(
    results: Iterable[Result], protocol: Protocol | None = None, choices: Sequence[Choice] = ()
) -> str:
    """All comparisons as aligned text for a terminal, judged by what was settled beforehand.

    Raises:
        ValueError: no results, or one run given twice.
    """
    comparisons = compare(results, protocol, choices)
    blocks = []
    for comparison in comparisons:
        heading = one_line(title(comparison, comparisons))
        blocks.append(f"{heading}\n{'=' * len(heading)}\n{one_line(summary(comparison))}")
        blocks += [_aligned(grid) for grid in grids(comparison)]
        blocks += ["\n".join(f"FAILED {line}" for line in failures(comparison))] * bool(failures(comparison))
    return visible("\n\n".join([*blocks, "\n".join(NOTES)]))


def markdown_tables(
    results: Iterable[Result], protocol: Protocol | None = None, choices: Sequence[Choice] = ()
) -> str:
    """All comparisons as Markdown, judged by what was settled beforehand.

    Raises:
        ValueError: no results, or one run given twice.
    """
    comparisons = compare(results, protocol, choices)
    blocks = []
    for comparison in comparisons:
        blocks += [f"## {markdown(title(comparison, comparisons))}", markdown(summary(comparison))]
        for grid in grids(comparison):
            blocks += [f"**{grid.caption}**", piped(grid)]
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
    """The verdict on every arm, against equal weights where they were run, in one sentence or two."""
    n = len(comparison.seeds)
    seeds = f"{n} seed{'s' * (n > 1)}"
    against = comparison.against
    found = {verdict: [] for verdict in VERDICTS}  # type: dict[str, list[str]]
    for row in comparison.rows:
        verdict = comparison.verdict(row.arm, against, DELTA) if against else None
        if verdict is not None and row.arm not in (against, SINGLE):
            found[verdict.verdict].append(row.arm)
    if not any(found.values()):
        return f"{seeds}; no arm can be compared with single-task training."
    if n < FEWEST_SEEDS:
        few = "One seed gives no interval" if n == 1 else "2 seeds are too few"
        return f"{few}, and so no verdict: run {FEWEST_SEEDS} or more."
    parts = [f"{verdict}: {', '.join(arms)}" for verdict, arms in found.items() if arms]
    what = called(str(against))
    lines = [in_words(found, what)]
    lines += [f"{DELTA} against {what}, {seeds}, {comparison.worth:g} points matter: {'; '.join(parts)}."]
    return " ".join([*lines, *warnings(comparison.findings)])


def in_words(found: Mapping[str, list[str]], what: str) -> str:
    """The verdicts on all arms for somebody who has not read what they are."""
    better, open_ = len(found["better"]), len(found["unresolved"])
    said = (
        f"{better} of {sum(map(len, found.values()))} did better than {what}"
        if better
        else f"Nothing is shown to do better than {what}"
    )
    if open_:
        said += f"; of {open_} it takes more seeds to tell (--until-resolved)"
    return f"{said}."


def failures(comparison: Comparison) -> list[str]:
    """One line per failed run."""
    failed = [result for result in comparison.results if result["status"] != "ok"]
    return [
        f"{result['id']}: {result['error']['type']}: {' '.join(result['error']['message'].split())}"
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
            marks = {what: comparison.verdict(row.arm, SINGLE, what) for what in (DELTA, *comparison.tasks)}
            cells = [
                _change(row.change[c.task], marks[c.task], c.metric in PERCENT, digits[c], n) for c in tasks
            ]
            changes.rows.append((row.arm, [_change(row.delta, marks[DELTA], False, 2, n), *cells]))
    arms = [row.arm for row in comparison.rows]
    others = [against for against in references(arms, comparison.base) if against != SINGLE]
    judged = [_verdicts(comparison, against) for against in others]
    if not any(found for row in comparison.rows for found in (row.delta, *row.change.values())):
        changes.rows.clear()
    return [grid for grid in (scores, changes, *judged) if grid.rows]


def _verdicts(comparison: Comparison, against: str) -> Grid:
    """Every arm against one of them: the interval, the verdict and what would resolve it; then by task."""
    known = any(reference == against for _, reference in comparison.test_halves)
    heads = [("", f"{DELTA} points"), ("", "verdict"), ("", "p"), ("", "more"), *[("", "test set")] * known]
    heads += [(task, "points") for task in comparison.tasks]
    grid = Grid(f"Against {against} (+ is better; {comparison.worth:g} points matter)", heads, [])
    for row in comparison.rows:
        verdict = comparison.verdict(row.arm, against, DELTA)
        if verdict is not None:
            cells = [Cell(_interval(verdict)), Cell(verdict.verdict, verdict.verdict)]
            cells += [Cell(f"{verdict.p:.3f}"), Cell(_more(verdict))]
            half = comparison.test_halves.get((row.arm, against))
            cells += [Cell("n/a" if half is None else f"± {half:.2f}")] * known
            for task in comparison.tasks:
                own = comparison.verdict(row.arm, against, task)
                text = "n/a" if own is None else _interval(own) + MARKS[own.verdict]
                cells.append(Cell(text, own.verdict if own else ""))
            grid.rows.append((row.arm, cells))
    return grid


def _more(verdict: Verdict) -> str:
    if verdict.interval.n < 2:
        return "n/a"
    return "" if verdict.more_seeds == 0 else str(verdict.more_seeds or "out of reach")


def _interval(verdict: Verdict) -> str:
    own = verdict.interval
    if not math.isfinite(own.half):
        return f"{own.mean:+.2f} [n/a]"
    return f"{own.mean:+.2f} [{own.low:+.2f}, {own.high:+.2f}]"


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


def _change(value: Estimate | None, verdict: Verdict | None, percent: bool, digits: int, seeds: int) -> Cell:
    if value is None:
        return Cell("n/a")
    mark = "unresolved" if verdict is None else verdict.verdict
    return Cell(_cell(value, percent, digits, seeds, sign="+").text + MARKS[mark], mark)


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


def piped(grid: Grid) -> str:
    """A table as Markdown."""
    header = ["arm", *(markdown(f"{group} {label}".strip()) for group, label in grid.columns)]
    lines = [header, ["---", *["---:"] * len(grid.columns)]]
    lines += [[_code(arm), *(cell.text.strip() for cell in cells)] for arm, cells in grid.rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _code(text: str) -> str:
    """As Markdown's code, where a backtick or a pipe of the text's own would end it."""
    return f"`{text}`" if text == one_line(text) and not set(text) & set("`|") else markdown(text)
