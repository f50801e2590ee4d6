"""How often the three strategies of ``mtlweights advise`` hold the winner of a comparison.

    python benchmarks/advise/run.py benchmarks/results/real FOLDER ... --json benchmarks/advise/results.json

For every problem of the results folders: the advice after 50 steps with equal weights, and the mean change
of every arm in points of per cent of single-task training, over the seeds that judge it, as the report has
it. The winner is the arm with the largest; single-task training is no strategy, and random weights are no
advice. ``verdict`` is the report's on the winner against equal weights, ``regret`` what the best of the
three, or equal weights, lacks of the winner. Writes ``results.md`` beside this file.
"""

from __future__ import annotations

import argparse
import json
from math import comb
from pathlib import Path
from statistics import fmean
from typing import Any

from mtlweights import problems
from mtlweights.bench import read_protocol, read_results
from mtlweights.bench.report.comparison import Comparison, compare
from mtlweights.bench.report.inference import DELTA
from mtlweights.bench.selection import labelled, read_choices
from mtlweights.cli.advise import look
from mtlweights.specs import parse_spec
from mtlweights.train import Settings

HERE = Path(__file__).parent
STEPS = 50
NO_ADVICE = ("single", "random")


def gains(comparison: Comparison) -> dict[str, float]:
    """Arm -> mean over tasks and seeds of the first metric's change against single-task training, in %."""
    return {
        arm: row.delta.mean
        for row in comparison.rows
        if row.delta is not None and (arm := parse_spec(row.arm)[0]) not in NO_ADVICE
    }


def row(comparison: Comparison) -> dict[str, Any]:
    """The advice on a problem beside what its arms came to."""
    loaded = problems.load(comparison.problem)
    run = comparison.of("equal")[0]
    own = {key: run["settings"][key] for key in ("batch_size", "clip", "weight_decay")}
    advice = look(loaded, Settings(**{**loaded.settings, **own}), STEPS)
    arms = gains(comparison)
    winner = max(arms, key=arms.__getitem__)
    verdict = comparison.verdict(winner, "equal", DELTA)
    # where equal weights are enough, they are the advice, and first of the three
    held = [name for name in advice.strategies if name in arms]
    best = max(arms[name] for name in {*held, "equal"})
    return {
        "problem": comparison.problem,
        "finding": advice.finding,
        "apart": advice.apart,
        "cosine": min(advice.cosines.values(), default=None),
        "three": list(advice.strategies),
        "costs": advice.costs,
        "arms": arms,
        "winner": winner,
        "verdict": verdict.verdict if verdict else "",
        "held": winner in held,
        "regret": arms[winner] - best,
        "equal_regret": arms[winner] - arms["equal"],
        "chance": chance(len(arms), len(held)),
    }


def chance(arms: int, three: int) -> float:
    """How often so many arms drawn blindly hold the winner."""
    return comb(arms - 1, three - 1) / comb(arms, three) if three else 0.0


def page(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    n = len(rows)
    held, blind = sum(found["held"] for found in rows), sum(found["chance"] for found in rows)
    heads = ["problem", "norms apart", "cosine", "finding", "the three", "winner of", "against equal"]
    heads += ["held", "regret", "of equal"]
    lines = [f"| {' | '.join(heads)} |", "|---|---:|---:|---|---|---|---|---|---:|---:|"]
    for found in rows:
        three = ", ".join(f"`{name}`" for name in found["three"])
        cells = [
            f"`{found['problem']}`",
            f"{found['apart']:.1f}",
            f"{found['cosine']:+.2f}",
            found["finding"],
        ]
        cells += [three, f"`{found['winner']}`, {len(found['arms'])}", found["verdict"] or "-"]
        cells += ["yes" if found["held"] else "no"]
        cells += [f"{found['regret']:.2f}", f"{found['equal_regret']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    mean, equal = (fmean(found[key] for found in rows) for key in ("regret", "equal_regret"))
    told = f"The three hold the winner on {held} of {n} problems; three drawn blindly would on {blind:.1f}. "
    told += (
        f"The best of the three and equal weights lacks {mean:.2f} points of the winner on average, equal "
    )
    told += f"weights alone {equal:.2f}."
    return "\n".join([told, "", *lines]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="*", help="results folders")
    parser.add_argument("--json", help="where the rows are added, those of the same problem replaced")
    args = parser.parse_args()
    kept = Path(args.json) if args.json else HERE / "results.json"
    rows = {found["problem"]: found for found in (json.loads(kept.read_text()) if kept.exists() else [])}
    for folder in args.results:
        choices = read_choices(folder)
        for comparison in compare(labelled(read_results(folder), choices), read_protocol(folder), choices):
            found = row(comparison)
            rows[found["problem"]] = {"of": Path(folder).name, **found}
            print(found["problem"], found["winner"], found["three"], flush=True)
    kept.write_text(json.dumps([*rows.values()], indent=1) + "\n")
    (HERE / "results.md").write_text(page([*rows.values()]))


if __name__ == "__main__":
    main()
