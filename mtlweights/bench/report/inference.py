"""Which arm is better than which, on which task, and how sure: every verdict of a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..protocol import Protocol
from ..runspec import SINGLE
from ..statistics import Verdict, judge

DELTA = "Δm"
EQUAL = "equal"
Scores = Mapping[str, Mapping[str, Mapping[int, float]]]  #: arm -> task -> seed -> metric, + better


@dataclass(frozen=True)
class Finding:
    """What is known of one arm against another, in Δm or on one task."""

    problem: str
    arm: str
    against: str
    what: str  #: `DELTA`, or a task
    verdict: Verdict

    def as_dict(self) -> dict[str, Any]:
        """For ``report --json``: numbers in per cent of single-task training; None is infinite."""
        own = self.verdict.interval
        low, high = (end if math.isfinite(end) else None for end in (own.low, own.high))
        return {
            "problem": self.problem,
            "arm": self.arm,
            "against": self.against,
            "what": self.what,
            "mean": own.mean,
            "low": low,
            "high": high,
            "p": self.verdict.p,
            "verdict": self.verdict.verdict,
            "seeds": own.n,
            "more_seeds": self.verdict.more_seeds,
        }


def references(arms: Sequence[str], base: str = EQUAL) -> list[str]:
    """What other arms are judged by: single-task training, equal weights (an axis has another ``base``), and
    static weights."""
    static = [arm for arm in arms if arm.split(":")[0] == "fixed"]
    return [arm for arm in (SINGLE, base, *static[:1]) if arm in arms]


def judged_by(arms: Sequence[str], base: str = EQUAL) -> str | None:
    """What arms are judged by first: the base, else single-task training, else static weights."""
    known = references(arms, base)
    return base if base in known else next(iter(known), None)


def called(reference: str) -> str:
    """A reference in a sentence."""
    weights = reference.split(":")[0] in (EQUAL, "fixed")
    return "single-task training" if reference == SINGLE else f"{reference} weights" if weights else reference


def findings(problem: str, scores: Scores, protocol: Protocol, base: str = EQUAL) -> list[Finding]:
    """Every arm against every reference, Holm over the arms for each reference and each thing compared.

    A difference is in per cent of the single-task mean, whose own uncertainty is propagated: with per-seed
    differences N_s and single-task scores Y_s the values judged are R + (N_s - R Y_s) / mean(Y), R the ratio
    of the means (its linearisation). Without single-task scores, or where their mean is 0, nothing is judged.
    """
    out = []
    tasks = list(dict.fromkeys(task for by_task in scores.values() for task in by_task))
    for against in references(list(scores), base):
        arms = [arm for arm in scores if arm != against]
        per_task = {task: {arm: relative(scores, arm, against, task) for arm in arms} for task in tasks}
        whats = {
            DELTA: {arm: mean_over_tasks([per_task[task][arm] for task in tasks]) for arm in arms},
            **per_task,
        }
        for what, by_arm in whats.items():
            values = {arm: list(found.values()) for arm, found in by_arm.items() if found}
            judged = judge(values, protocol.worth_of(problem), design=protocol.design, alpha=protocol.alpha)
            out += [Finding(problem, arm, against, what, verdict) for arm, verdict in judged.items()]
    return out


def relative(scores: Scores, arm: str, against: str, task: str) -> dict[int, float]:
    """Seed -> difference to the other arm, in per cent of single-task training, linearised."""
    own, other, alone = (scores.get(a, {}).get(task, {}) for a in (arm, against, SINGLE))
    seeds = sorted(own.keys() & other.keys() & alone.keys())
    base = fmean(alone[seed] for seed in seeds) if seeds else 0.0
    if base == 0:
        return {}
    ratio = fmean(own[seed] - other[seed] for seed in seeds) / abs(base)
    sign = math.copysign(1, base)
    rest = {seed: own[seed] - other[seed] - ratio * sign * alone[seed] for seed in seeds}
    return {seed: 100 * (ratio + rest[seed] / abs(base)) for seed in seeds}


def warnings(found: Sequence[Finding]) -> list[str]:
    """What a single number hides: an arm that gains on one task what it loses on another."""
    lines = []
    for finding in found:
        if finding.what != DELTA or finding.against == SINGLE:
            continue
        same = [f for f in found if (f.arm, f.against) == (finding.arm, finding.against) and f.what != DELTA]
        gains = [f.what for f in same if f.verdict.verdict == "better"]
        losses = [f.what for f in same if f.verdict.verdict == "worse"]
        if gains and losses:
            lines.append(
                f"{finding.arm} against {finding.against}: better on {', '.join(gains)}, worse on "
                f"{', '.join(losses)}; its {DELTA} averages the two."
            )
    return lines


def mean_over_tasks(per_task: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """Seed -> mean of the tasks' values, for the seeds that all of them have."""
    shared = set.intersection(*map(set, per_task)) if per_task else set()
    return {seed: fmean(task[seed] for task in per_task) for seed in sorted(shared)}
