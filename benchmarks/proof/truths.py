"""Comparisons whose answer can be computed: two quadratic tasks, as they are and with one loss times 100.

Task i is l_i(x) = |x - a_i|^2 / 2 + 2 in the plane. With weights w the weighted sum is least at the
weighted mean of the a_i, so every point between a_1 and a_2 is Pareto optimal and nothing else is. What a
strategy must end at follows from its formula:

- ``equal``: (s a_1 + a_2) / (s + 1), s the factor: the unit of a loss decides;
- ``scale_invariant``: the stationary points of log l_1 + log l_2, whatever s;
- ``uw``, ``imtl_l``: their learned weights tend to 1 / l_i (up to a factor), so the same points, whatever s;
- ``mgda``: its direction is 0 only where the shortest convex combination of the gradients is: on the front.

Each is trained by the Balancer with noise in its gradients, seed by seed, and judged by `statistics.judge` on
what it must come to: a strategy is *equal* to itself under the factor, or it is not.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from mtlweights import Balancer
from mtlweights.bench.statistics import judge
from mtlweights.specs import parse_spec

ENDS = np.array([[-1.0, 0.0], [1.0, 0.0]])
FACTOR, STEPS, NOISE, SEEDS, WORTH = 100.0, 1500, 0.05, 10, 0.05
#: learned weights need a rate at which they arrive within the steps: at their default uw moves by 0.5 here
ARMS = {
    "equal": "not equal",
    "uw:weight_lr=0.2": "equal",
    "imtl_l:weight_lr=0.2": "equal",
    "scale_invariant": "equal",
}


def end_point(strategy: str, factor: float, seed: int) -> NDArray[np.float64]:
    """Where training ends: x averaged over the last fifth of the steps."""
    torch.manual_seed(seed)
    x = torch.nn.Parameter(torch.tensor([0.3, 0.8]) + 0.2 * torch.randn(2))
    name, options = parse_spec(strategy)
    balancer = Balancer(name, tasks=["first", "second"], shared=[x], seed=seed, **options)
    optimizer = torch.optim.Adam([x], lr=0.02)
    balancer.attach(optimizer)
    places, scales = torch.tensor(ENDS, dtype=torch.float32), (factor, 1.0)
    tail = []
    for step in range(STEPS):
        noisy = places + NOISE * torch.randn(2, 2)
        losses = [s * (0.5 * (x - a).square().sum() + 2) for s, a in zip(scales, noisy, strict=True)]
        optimizer.zero_grad()
        balancer(dict(zip(("first", "second"), losses, strict=True))).backward()
        optimizer.step()
        if step >= 0.8 * STEPS:
            tail.append(x.detach().double().numpy().copy())
    return np.mean(tail, axis=0)


def on_front(x: NDArray[np.float64]) -> float:
    """Distance to the Pareto front, the line between the two ends."""
    share = float(np.clip((x - ENDS[0]) @ (ENDS[1] - ENDS[0]) / 4, 0, 1))
    return float(np.linalg.norm(x - (ENDS[0] + share * (ENDS[1] - ENDS[0]))))


def truths(seeds: int = SEEDS) -> tuple[list[list[str]], bool]:
    """Rows (strategy, what must hold, verdict, distance to the front, right) and whether all are right."""
    rows, good = [], True
    own = {arm: [end_point(arm, 1.0, seed) for seed in range(seeds)] for arm in [*ARMS, "mgda"]}
    other = {arm: [end_point(arm, FACTOR, seed) for seed in range(seeds)] for arm in ARMS}
    moved = {
        arm: [float(there[0] - here[0]) for here, there in zip(own[arm], other[arm], strict=True)]
        for arm in ARMS
    }
    found = judge(moved, WORTH)
    for arm, must in ARMS.items():
        verdict = found[arm]
        right = (verdict.verdict == "equal") == (must == "equal") and verdict.verdict != "unresolved"
        far = max(map(on_front, [*own[arm], *other[arm]]))
        middle = verdict.interval
        told = f"{verdict.verdict}: {middle.mean:+.3f} [{middle.low:+.3f}, {middle.high:+.3f}]"
        right = right and far < WORTH
        rows.append(
            [arm, f"{must} under a loss times {FACTOR:g}", told, f"{far:.3f}", "yes" if right else "no"]
        )
        good = good and right
    far = max(map(on_front, own["mgda"]))
    rows.append(["mgda", "ends on the Pareto front", "", f"{far:.3f}", "yes" if far < WORTH else "no"])
    expected = (FACTOR * ENDS[0] + ENDS[1]) / (FACTOR + 1)
    gap = float(np.linalg.norm(np.mean(other["equal"], axis=0) - expected))
    rows.append(
        [
            "equal",
            f"ends at the weighted mean, {expected[0]:+.3f}",
            "",
            f"{gap:.3f} off",
            "yes" if gap < WORTH else "no",
        ]
    )
    return rows, good and far < WORTH and gap < WORTH
