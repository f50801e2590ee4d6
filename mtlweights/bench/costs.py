"""What a step of every arm costs beside the first: measured apart from the runs, one arm at a time."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from ..files import atomic, schemas
from ..files.escapes import visible
from ..files.reading import read_json
from .front import is_front
from .selection import Choice

FILE = "costs.json"
ROUNDS = 24  #: interleaved steps of the arm and of equal weights, the first two to warm up
_COST = {"time": schemas.NUMBER, "memory": schemas.NUMBER}

#: id of the chosen trial -> ratios to a step of equal weights; 0 for memory where there is no GPU
Costs = dict[str, dict[str, float]]


def measure_costs(choices: Sequence[Choice], folder: str | Path, *, rounds: int = ROUNDS) -> Costs:
    """Measure the arms whose costs a results folder lacks, keep them there, and return all.

    Each is the median step of the arm over that of equal weights, along an axis of its first arm, on the same
    batches, interleaved, so that what else the machine does meets both. An arm that cannot be measured is
    said, and left out.

    Raises:
        ValueError: the file is there and holds no costs.
        OSError: the folder cannot be written.
    """
    from .. import problems
    from ..problems import Problem
    from ..train import Settings
    from ..train.settings import resolve_device
    from .runspec import RunSpec
    from .tune.cost import Cost
    from .tune.space import EQUAL

    def run_of(choice: Choice) -> RunSpec:
        own = choice.trials[choice.chosen]
        return RunSpec(choice.runs_on, own["strategy"], None, Settings(**own["settings"], seed=0))

    loaded: dict[str, Problem] = {}

    def load(spec: str) -> Problem:
        if spec not in loaded:
            if len(loaded) > 1:  # two at a time: they may be large
                loaded.clear()
            loaded[spec] = problems.load(spec)
        return loaded[spec]

    known, cost = read_costs(folder), Cost(load, rounds)
    for choice in choices:
        trial, first = choice.trials[choice.chosen], choice.axis[1] if choice.axis else EQUAL
        if choice.only is not None or choice.arm == first or is_front(choice.arm) or trial["id"] in known:
            continue
        spec, against = run_of(choice), next(map(run_of, filter(partial(_is_base, choice), choices)), None)
        try:
            cuda = (
                resolve_device(spec.settings.device).type == "cuda"
            )  # elsewhere Python hides the difference
            memory = cost.ratio(spec, "memory", against) if cuda else 0.0
            known[trial["id"]] = {"time": cost.ratio(spec, "time", against), "memory": memory}
        except Exception as error:  # whatever a strategy of the user's own raises: its runs say the same
            reason = f"{type(error).__name__}: {error}"
            print(visible(f"no cost of {choice.arm} on {choice.problem}: {reason}"), file=sys.stderr)
            continue
        keep_costs(known, folder)
    return known


def _is_base(choice: Choice, other: Choice) -> bool:
    """Whether the other is what costs along the choice's axis are measured beside."""
    if choice.axis is None or other.only is not None:
        return False
    same = (choice.problem, choice.budget, choice.axis) == (other.problem, other.budget, other.axis)
    return same and other.arm == choice.axis[1]


def keep_costs(costs: Mapping[str, Mapping[str, float]], folder: str | Path) -> None:
    """Write them into a results folder; nothing where there are none.

    Raises:
        OSError: it cannot be written.
    """
    if costs:
        atomic.write(Path(folder) / FILE, json.dumps(costs, indent=1, sort_keys=True) + "\n")


def read_costs(folder: str | Path) -> Costs:
    """What was measured for a results folder, nothing if nothing was.

    Raises:
        ValueError: the file is there and holds no costs.
    """
    path = Path(folder) / FILE
    try:
        content = read_json(path)
        schemas.check(content, schemas.Each(_COST), "the file")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        reason = visible(str(getattr(error, "strerror", None) or error))
        raise ValueError(f"{path} holds no costs of a bench: {reason}; delete it to measure anew.") from None
    return {str(key): dict(cost) for key, cost in content.items()}
