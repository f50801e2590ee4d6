"""Whether the comparison's verdicts can be trusted: benchmarks whose truth is known, thousands of them.

``python benchmarks/proof/run.py`` writes ``results.md``, and ``results.json``, which a results folder may
hold as ``proof.json`` for its page: how often arms without any difference are called better or worse (A/A),
how often planted effects are found beside what theory gives, and whether the verdicts are right where the
answer can be computed. Minutes on one core; ``--benchmarks`` for fewer.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import stats
from truths import truths

from mtlweights.bench.statistics import judge

HERE = Path(__file__).parent
REAL = HERE / "one_arm.json"  #: what ``one_arm.py`` leaves: scores of many runs of one arm
ALPHA, ARMS, SEEDS, MOST, FIRST, EACH = 0.05, 11, 10, 40, 3, 2


@dataclass(frozen=True)
class Table:
    """Figures, and whether they are within their bounds; the report's page shows these."""

    caption: str
    heads: list[str]
    rows: list[list[str]]
    good: bool


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


def same(benchmarks: int) -> Table:
    """A/A: benchmarks with any *better* or *worse* among arms that are all the same."""
    rows, good, bound = [], True, int(stats.binom.ppf(0.99, benchmarks, ALPHA))
    for noise, draw in NOISE.items():
        for name, design in DESIGNS.items():
            rng = np.random.default_rng(0)
            wrong = 0
            for _ in range(benchmarks):
                verdicts = design(differences(draw, rng, np.zeros(ARMS)), worth=0.0)
                wrong += any(v in ("better", "worse") for v in verdicts.values())
            good = good and wrong <= bound
            rows.append([noise, name, f"{wrong} of {benchmarks:,} ({wrong / benchmarks:.1%})", str(bound)])
            print(rows[-1], file=sys.stderr, flush=True)
    heads = ["seeds' noise", "design", "false verdicts", "allowed"]
    return Table(
        f"No difference at all: {ARMS} arms against one (family-wise {ALPHA:.0%})", heads, rows, good
    )


def planted(benchmarks: int) -> Table:
    """Power: one arm alone with an effect, beside the noncentral t's."""
    rows, good = [], True
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
            rows.append([f"{effect:g}", name, f"{found / benchmarks:.1%}", beside])
            print(rows[-1], file=sys.stderr, flush=True)
    return Table(
        "Planted effects, one arm", ["effect, sd of a difference", "design", "found", "theory"], rows, good
    )


def real(file: Path, benchmarks: int) -> Table:
    """A/A on real runs of one arm: random disjoint subsets of them stand for the arms.

    The subsets of one benchmark share no run, but benchmarks share all of them, so their number is no number
    of independent trials; the bound is that of as many, which is stricter than the truth.
    """
    content = json.loads(file.read_text("utf-8"))
    values = np.array(content["values"])
    arms = len(values) // SEEDS - 1
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(benchmarks):
        parts = rng.permutation(values)[: (arms + 1) * SEEDS].reshape(arms + 1, SEEDS)
        verdicts = fixed(parts[1:] - parts[0], worth=0.0)
        wrong += any(v in ("better", "worse") for v in verdicts.values())
    bound = int(stats.binom.ppf(0.99, benchmarks, ALPHA))
    row = [
        content["what"],
        f"{arms} arms, {SEEDS} seeds",
        f"{wrong} of {benchmarks:,} ({wrong / benchmarks:.1%})",
    ]
    heads = ["runs", "subsets", "false verdicts", "allowed"]
    return Table("No difference, real runs of one arm", heads, [[*row, str(bound)]], wrong <= bound)


def known(seeds: int) -> Table:
    """Comparisons whose answer can be computed."""
    rows, good = truths(seeds)
    heads = ["strategy", "what must hold", "verdict", "distance to the front", "right"]
    return Table("Known truths: two quadratic tasks", heads, rows, good)


def as_markdown(table: Table) -> str:
    """A section of the page."""
    lines = ["| " + " | ".join(row) + " |" for row in (table.heads, ["---"] * len(table.heads), *table.rows)]
    verdict = "Within the bounds." if table.good else "**Out of the bounds.**"
    return "\n".join([f"## {table.caption}", "", *lines, "", verdict])


def main() -> int:
    """Run all, write the page; 1 if a figure is out of its bound."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--benchmarks", type=int, default=2_000)
    parser.add_argument("--seeds", type=int, default=10, help="of the known truths")
    parser.add_argument("--out", type=Path, default=HERE / "results.md")
    plan = parser.parse_args()
    tables = [same(plan.benchmarks), planted(plan.benchmarks), known(plan.seeds)]
    if REAL.is_file():
        tables.insert(1, real(REAL, plan.benchmarks))
    text = ["# Whether the verdicts can be trusted", "Written by `python benchmarks/proof/run.py`."]
    plan.out.write_text("\n\n".join([*text, *map(as_markdown, tables)]) + "\n", encoding="utf-8")
    found = {"tables": [asdict(table) for table in tables]}
    plan.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0 if all(table.good for table in tables) else 1


if __name__ == "__main__":
    sys.exit(main())
