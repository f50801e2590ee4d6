"""A study on the page: its outcome, its best trials, and Optuna's own figures, drawn from ``study.json``."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ...files.reading import read_json
from .drawing import inline

if TYPE_CHECKING:
    from optuna import Study

STUDY = "study.json"  #: what ``mtlweights tune`` leaves in its results folder
SHOWN = 12  #: trials in the table
LARGEST = 256 << 20  #: bytes

Record = Mapping[str, Any]


def read_study(folder: str | Path) -> Record | None:
    """The record of the study in a results folder; None if there is none.

    Raises:
        ValueError: the file is none of ours.
    """
    path = Path(folder) / STUDY
    if not path.is_file():
        return None
    try:
        found = read_json(path, LARGEST)
        missing = {"name", "of", "tasks", "best", "fresh", "optimism", "trials"} - found.keys()
        if missing:
            raise ValueError(f"it lacks {min(missing)}")
        return dict(found)
    except (ValueError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is no record of a study: {error}.") from None


def without_trials(results: Sequence[Mapping[str, Any]], study: Record | None) -> list[Mapping[str, Any]]:
    """The results that can be compared: trials have seen no test split, each under settings of its own."""
    if study is None:
        return list(results)
    trials = {trial["attributes"].get("run", {}).get("id") for trial in study["trials"]}
    return [r for r in results if r["test"] or (r["status"] != "ok" and r["id"] not in trials)]


def section(study: Record) -> dict[str, Any]:
    """What the template shows of a study."""
    trials = list(study["trials"])
    ended = [trial for trial in trials if trial["state"] == "COMPLETE"]
    ranked = sorted(ended, key=lambda trial: -fmean(trial["values"]))
    states = [trial["state"] for trial in trials]
    figures, importances = _figures(study)
    return {
        "name": study["name"],
        "problem": study["of"]["problem"],
        "seed": study["of"]["settings"]["seed"],
        "pareto": study["of"]["aim"]["pareto"],
        "tasks": study["tasks"],
        "counts": {state: states.count(state) for state in dict.fromkeys(states)},
        "diverged": sum(bool(trial["attributes"].get("diverged")) for trial in trials),
        "minutes": sum(trial["seconds"] or 0 for trial in trials) / 60,
        "best": next((trial for trial in trials if trial["number"] == study["best"]), None),
        "top": ranked[:SHOWN],
        "fresh": study["fresh"],
        "optimism": study["optimism"],
        "hypervolume": study.get("hypervolume"),
        "importances": importances,
        "figures": figures,
    }


def _figures(study: Record) -> tuple[dict[str, str], dict[str, float]]:
    """Optuna's figures as SVG by caption, and how much each parameter mattered; nothing without Optuna."""
    try:
        import optuna
        from optuna.visualization import matplotlib as draw
    except ImportError:
        return {}, {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made, drawn_only = _rebuilt(study), _rebuilt(study, arms=False)
        names = study["tasks"] if study["of"]["aim"]["pareto"] else ["gain"]
        mean: Any = lambda trial: fmean(trial.values)  # noqa: E731
        importances = _tried(lambda: optuna.importance.get_param_importances(drawn_only, target=mean)) or {}
        drawn: dict[str, Callable[[], Any]] = {
            "The best so far": lambda: draw.plot_optimization_history(
                made, target=mean if len(names) > 1 else None, target_name="mean gain"
            ),
            "How much each parameter mattered": lambda: draw.plot_param_importances(
                drawn_only, target=mean, target_name="mean gain"
            ),
            "What each parameter gave": lambda: draw.plot_slice(
                drawn_only, params=list(importances)[:3] or None, target=mean, target_name="mean gain"
            ),
            "Distribution of the gain": lambda: draw.plot_edf(made, target=mean, target_name="mean gain"),
            "When each trial ran": lambda: draw.plot_timeline(made),
        }
        if len(names) > 1:
            drawn["Pareto front"] = lambda: draw.plot_pareto_front(made, target_names=names)
        else:
            drawn["Epoch by epoch"] = lambda: draw.plot_intermediate_values(made)
        svgs = {caption: _tried(partial(_svg, make, caption)) for caption, make in drawn.items()}
    return {caption: svg for caption, svg in svgs.items() if svg}, importances


def _tried(make: Callable[[], Any]) -> Any:
    """What Optuna makes of it; None where it refuses: too few trials, a parameter with one value ..."""
    try:
        return make()
    except Exception:
        return None


def _rebuilt(record: Record, arms: bool = True) -> Study:
    """The study in memory; without ``arms`` only trials that are draws from the space."""
    import optuna
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState, create_trial

    objectives = len(record["tasks"]) if record["of"]["aim"]["pareto"] else 1
    study = optuna.create_study(directions=["maximize"] * objectives)
    for trial in record["trials"]:
        if trial["state"] not in ("COMPLETE", "PRUNED", "FAIL") or (trial["arm"] and not arms):
            continue
        made = create_trial(
            state=TrialState[trial["state"]],
            values=trial["values"],
            params=trial["params"],
            distributions={key: json_to_distribution(text) for key, text in trial["distributions"].items()},
            intermediate_values={int(step): value for step, value in trial["intermediate"].items()},
        )
        if trial["start"]:
            made.datetime_start = datetime.fromisoformat(trial["start"])
            made.datetime_complete = made.datetime_start + timedelta(seconds=trial["seconds"] or 0)
        study.add_trial(made)
    return study


def _svg(make: Callable[[], Any], caption: str) -> str:
    """A figure of Optuna's as an element of the page, on a white ground: its colours are its own."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "study", "text.parse_math": False}):
        axes = np.ravel(np.asarray(make()))[0]
        file = io.StringIO()
        axes.figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
        pyplot.close(axes.figure)
    return inline(file.getvalue(), caption, f"optuna {caption}")
