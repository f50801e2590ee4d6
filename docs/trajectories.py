"""The way of every strategy down the two-dimensional toy problem, for its page.

``python docs/trajectories.py`` (minutes) rewrites docs/trajectories.json, with names those alone; the
pages draw from it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mtlweights import Balancer
from mtlweights.problems.data.toy import losses as exact
from mtlweights.strategies.registry import STRATEGIES

ROOT = Path(__file__).parents[1]
FILE = ROOT / "docs" / "trajectories.json"
sys.path.insert(0, str(ROOT / "benchmarks" / "toy"))
from descent import Losses  # noqa: E402

STARTS = ((-8.5, 7.5), (9.0, 9.0))
RATE, STEPS, EPOCH = 0.06, 400, 20  # of Adam; steps of a run, and between two ends of an epoch
SCALE = 0.1  #: of the first loss
POINTS = 40  #: kept of a trajectory


def path(name: str, start: tuple[float, float], steps: int = STEPS) -> np.ndarray:
    """The points [steps + 1, 2] of a run through the Balancer, as a loop would have it."""
    x = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    cls = STRATEGIES[name]
    balancer = Balancer(name, ("l1", "l2"))
    optimizer = (torch.optim.SGD if cls.replaces_optimizer else torch.optim.Adam)([x], lr=RATE)
    balancer.attach(optimizer)

    def current() -> dict[str, torch.Tensor]:
        first, second = Losses.apply(x)
        return {"l1": SCALE * first, "l2": second}

    untrained = {task: loss.item() for task, loss in current().items()}
    found = [x.tolist()]
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        if "validate" in cls.hooks():
            balancer.validate(current)
        for _ in range(cls.batches):
            (balancer(current()) / cls.batches).backward()
        optimizer.step()
        if "after_step" in cls.hooks():
            balancer.after_step(current)
        if step % EPOCH == 0:
            scores = {task: 1 - loss.item() / untrained[task] for task, loss in current().items()}
            balancer.end_epoch(scores)
        found.append(x.tolist())
    return np.array(found)


def thinned(points: np.ndarray) -> list[list[float]]:
    """POINTS of them, evenly along the way."""
    along = np.concatenate([[0.0], np.hypot(*np.diff(points, axis=0).T).cumsum()])
    at = np.searchsorted(along, np.linspace(0, along[-1], POINTS))
    return points[at.clip(max=len(points) - 1)].round(2).tolist()


def contours() -> list[list[list[float]]]:
    """Lines of equal mean loss."""
    from matplotlib.figure import Figure

    axis = np.linspace(-10, 10, 121)
    grid = torch.tensor(np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2))
    values = exact(grid) @ torch.tensor([SCALE / 2, 0.5], dtype=torch.float64)
    drawn = Figure().subplots().contour(axis, axis, values.reshape(121, 121).numpy(), levels=9)
    return [line.round(1).tolist() for level in drawn.allsegs for line in level if len(line) > 6]


def main() -> None:
    torch.set_num_threads(1)
    kept: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))["runs"] if sys.argv[1:] else {}
    runs: dict[str, Any] = {name: kept.get(name) for name in STRATEGIES}
    for name in sys.argv[1:] or STRATEGIES:
        runs[name] = [thinned(path(name, start)) for start in STARTS]
        print(name, [run[-1] for run in runs[name]], flush=True)
    lines = [f'"{name}": {json.dumps(run)}' for name, run in runs.items()]
    text = f'{{"contours": {json.dumps(contours())},\n"runs": {{\n' + ",\n".join(lines) + "\n}}\n"
    FILE.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
