"""Whether the comparison's verdicts can be trusted: benchmarks whose truth is known, thousands of them.

``python benchmarks/proof/run.py`` writes ``results.md``: how often arms without any difference are called
better or worse (A/A), how often planted effects are found beside what theory gives, and whether the verdicts
are right where the answer can be computed. Minutes on one core; ``--benchmarks`` for fewer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mtlweights.bench.statistics import judge

HERE = Path(__file__).parent
ALPHA, ARMS, SEEDS, MOST, FIRST, EACH = 0.05, 11, 10, 40, 3, 2
Draw = Callable[[np.random.Generator, tuple[int, ...]], NDArray[np.float64]]
#: noise of a run, standard deviation 1
NOISE: dict[str, Draw] = {
    "normal": lambda rng, size: rng.normal(size=size),
    "heavy-tailed (t, 3 degrees)": lambda rng, size: rng.standard_t(3, size=size) / 3**0.5,
    "skewed (exponential)": lambda rng, size: rng.exponential(size=size) - 1,
}


def differences(draw: Draw, rng: np.random.Generator, effects: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each arm's differences to the same reference [arms, seeds], of a seed's own noise and each run's."""
    own = draw(rng, (len(effects) + 1, MOST)) / 2**0.5
    return own[:-1] - own[-1] + effects[:, None]


def fixed(values: NDArray[np.float64], worth: float) -> dict[str, str]:
    """The verdicts with `SEEDS` seeds."""
    found = judge({str(k): row[:SEEDS].tolist() for k, row in enumerate(values)}, worth, alpha=ALPHA)
    return {arm: verdict.verdict for arm, verdict in found.items()}


def until_resolved(values: NDArray[np.float64], worth: float) -> dict[str, str]:
    """The verdicts when only unresolved arms get more seeds, judged after each round."""
    seeds = dict.fromkeys(range(len(values)), FIRST)
    while True:
        found = judge(
            {str(k): values[k, :n].tolist() for k, n in seeds.items()},
            worth,
            design="until-resolved",
            alpha=ALPHA,
        )
        more = [k for k, n in seeds.items() if found[str(k)].verdict == "unresolved" and n < MOST]
        if not more:
            return {arm: verdict.verdict for arm, verdict in found.items()}
        for k in more:
            seeds[k] = min(MOST, seeds[k] + EACH)


DESIGNS = {"fixed, 10 seeds": fixed, "until resolved, at most 40": until_resolved}


def same(benchmarks: int) -> tuple[list[str], bool]:
    """A/A: benchmarks with any *better* or *worse* among arms that are all the same."""
    bound = int(stats.binom.ppf(0.99, benchmarks, ALPHA))
    lines = ["| seeds' noise | design | false verdicts | allowed |", "|---|---|---:|---:|"]
    good = True
    for noise, draw in NOISE.items():
        for name, design in DESIGNS.items():
            rng = np.random.default_rng(0)
            wrong = 0
            for _ in range(benchmarks):
                verdicts = design(differences(draw, rng, np.zeros(ARMS)), worth=0.0)
                wrong += any(v in ("better", "worse") for v in verdicts.values())
            good = good and wrong <= bound
            lines.append(
                f"| {noise} | {name} | {wrong} of {benchmarks:,} ({wrong / benchmarks:.1%}) | {bound} |"
            )
            print(lines[-1], file=sys.stderr, flush=True)
    return lines, good


def planted(benchmarks: int) -> tuple[list[str], bool]:
    """Power: one arm alone with an effect, beside the noncentral t's."""
    lines = ["| effect, sd of a difference | design | found | theory |", "|---:|---|---:|---:|"]
    good = True
    for effect in (0.5, 1.0, 2.0):
        limit = stats.t.ppf(1 - ALPHA / 2, SEEDS - 1)
        theory = stats.nct.sf(limit, SEEDS - 1, effect * SEEDS**0.5)
        for name, design in DESIGNS.items():
            rng = np.random.default_rng(1)
            draws = (differences(NOISE["normal"], rng, np.array([effect])) for _ in range(benchmarks))
            found = sum(design(values, worth=0.0)["0"] == "better" for values in draws)
            low, high = stats.binom.ppf([0.005, 0.995], benchmarks, theory)
            good = good and (design is until_resolved or low <= found <= high)
            beside = f"{theory:.1%}" if design is fixed else ""
            lines.append(f"| {effect:g} | {name} | {found / benchmarks:.1%} | {beside} |")
            print(lines[-1], file=sys.stderr, flush=True)
    return lines, good


def main() -> int:
    """Run all, write the page; 1 if a figure is out of its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", type=int, default=2_000)
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    plan = parser.parse_args()
    parts = {
        f"No difference at all: {ARMS} arms against one (family-wise {ALPHA:.0%})": same(plan.benchmarks),
        "Planted effects, one arm": planted(plan.benchmarks),
    }
    text = ["# Whether the verdicts can be trusted", "", "Written by `python benchmarks/proof/run.py`."]
    for title, (lines, good) in parts.items():
        text += [
            "",
            f"## {title}",
            "",
            *lines,
            "",
            "Within the bounds." if good else "**Out of the bounds.**",
        ]
    plan.out.write_text("\n".join(text) + "\n", encoding="utf-8")
    return 0 if all(good for _, good in parts.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
