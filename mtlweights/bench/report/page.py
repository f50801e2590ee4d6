"""The report as one HTML file that needs nothing else: tables, curves, weights, failures, provenance."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from ...files.atomic import write
from ...files.escapes import visible
from ..costs import Costs
from ..front import is_front
from ..protocol import Protocol
from ..selection import Choice
from .across import across_problems
from .chosen import chosen_grid, tuning_curves
from .comparison import Comparison, Result, arm_of, compare
from .costs import cost_figure, cost_grid, costs_of
from .figures import validation_curves, weight_trajectories
from .front import against_front
from .panels import exposure, pairwise, stress, trade_off
from .parts import write_parts
from .proof import proof_of
from .study import Record, section
from .table import NOTES, Grid, grids, summary, title
from .understood import understood
from .verdict_figure import verdict_figure

SOON = 5.0  #: seconds before a bar is shown


def write_page(
    results: Iterable[Result],
    path: str | Path,
    *,
    title: str = "Comparison of strategies",
    protocol: Protocol | None = None,
    study: Record | None = None,
    choices: Sequence[Choice] = (),
    costs: Costs | None = None,
) -> Path:
    """Write the page and return its path; with ``study``, a study's record, that comes first.

    Beside it ``figures/`` has every figure as SVG, ``tables/`` every table as CSV, Markdown and LaTeX.

    Raises:
        ValueError: no results, or one run given twice.
        OSError: the file cannot be written.
    """
    from tqdm import tqdm

    path = Path(path)
    results = list(results)
    comparisons = compare(results, protocol, choices) if results or study is None else []
    bar = tqdm(comparisons, desc="page", unit="problem", disable=None, delay=SOON, leave=False)
    sections = [_section(i, comparison, comparisons, costs or {}) for i, comparison in enumerate(bar)]
    across = across_problems(comparisons)
    learnt = understood(path.parent)
    text = visible(render(results, title, sections, across, study, proof_of(path.parent), learnt))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, text)
        write_parts([*sections, *across, *([] if learnt is None else [learnt])], path.parent)
    except OSError as error:
        raise OSError(f"cannot write the page to {path}: {error.strerror or error}.") from None
    return path


def render(
    results: list[Result],
    heading: str,
    sections: list[dict[str, Any]],
    across: list[dict[str, Any]],
    study: Record | None,
    proof: Mapping[str, Any] | None,
    learnt: Mapping[str, Any] | None,
) -> str:
    """The page's HTML."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    script = resources.files(__package__).joinpath("page.js").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.j2").render(
        script=script,
        script_digest=f"sha256-{digest}",  # the only script that runs, whatever names come from strangers
        heading=heading,
        study=study and section(study),
        sections=sections,
        across=across,
        proof=proof,
        understood=learnt,
        counts=_counts(results),
        failed=[result for result in results if result["status"] != "ok"],
        notes=NOTES,
        environments=_environments(results),
        arm_of=arm_of,
    )


def _section(number: int, comparison: Comparison, among: list[Comparison], costs: Costs) -> dict[str, Any]:
    arms, own = [row.arm for row in comparison.rows], costs_of(comparison, costs)
    more = (cost_grid(comparison, own), *_more_grids(comparison, among))
    weights = weight_trajectories(comparison)
    return {
        "id": f"problem-{number + 1}",
        "title": title(comparison, among),
        "summary": summary(comparison),
        "figure": verdict_figure(comparison),
        "grids": [*grids(comparison), *(grid for grid in more if grid is not None)],
        "trade_off": trade_off(comparison),
        "cost": cost_figure(comparison, own),
        "tuning": tuning_curves(comparison.choices),
        "curves": validation_curves(comparison),
        "weights": weights,
        "weightless": [arm for arm in arms[1:] if arm not in weights],
        "tasks": comparison.tasks,
        "arms": arms,
        "seeds": comparison.seeds,
        "settings": comparison.settings,
        "minutes": sum(result["seconds"] or 0 for result in comparison.results) / 60,
    }


def _more_grids(comparison: Comparison, among: list[Comparison]) -> list[Grid | None]:
    found = [against_front(comparison), stress(comparison, among), pairwise(comparison)]
    return [*found, chosen_grid(comparison.choices), exposure(comparison)]


def _counts(results: list[Result]) -> dict[str, Any]:
    failed = sum(result["status"] != "ok" for result in results)
    arms = {arm_of(result) for result in results if not is_front(arm_of(result))}
    return {
        "runs": len(results),
        "failed": failed,
        "arms": len(arms),
        "seeds": len({result["seed"] for result in results}),
        "problems": len({result["problem"] for result in results}),
    }


def _environments(results: list[Result]) -> dict[str, str]:
    """Each entry of the runs' environments; several values where the runs differ."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        environment: Mapping[str, Any] = result["environment"]
        for key, value in environment.items():
            found.setdefault(key, {})[str(value) if value is not None else "none"] = None
    return {key: "; ".join(values) for key, values in found.items()}
