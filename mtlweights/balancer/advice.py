"""Which strategies to try on a model: what is measured in its loop, and the rule that reads it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

APART = 3.0  #: norms of two tasks' gradients that differ by this factor are of different scales
OPPOSED = -0.1  #: a mean cosine below this is a conflict
DEAR = 2.0  #: a step that takes this many plain ones
NOISY = 10.0  #: batches that a gradient must be averaged over before it is more signal than noise
FEW = 20  #: steps below which the means are not to be relied on

#: finding -> what to try first, with the reason
_TRY: dict[str, dict[str, str]] = {
    "scales": {
        "scale_invariant": "no unit of a loss changes it; one pass; losses above 0",
        "igb": "weighs each loss by how far it has come; one pass; losses above 0",
        "pcgrad": "keeps the short gradients from being undone by the long one",
    },
    "conflict": {
        "pcgrad": "takes out of each gradient what opposes another's",
        "cagrad": "the best progress of the worst task near the mean gradient",
        "uw": "learned weights, one pass: the cheap one to beat",
    },
    "none": {
        "equal": "nothing measured speaks against it",
        "uw": "learned weights, one pass",
        "cagrad": "the nearest to equal weights among the gradient methods",
    },
}
_GRAMIAN = ("pcgrad", "cagrad", "imtl_g")


@dataclass(frozen=True)
class Advice:
    """What was measured, and what it speaks for. ``str()`` of it is the report.

    Attributes:
        steps: measured ones.
        losses: task -> mean loss.
        norms: task -> root mean square norm of its gradient on the shared parameters.
        cosines: (task, task) -> mean cosine of their gradients.
        opposed: (task, task) -> share of the steps with a cosine below 0.
        noise: task -> gradient noise scale in batches of the size seen: over how many the gradient must be
            averaged for signal and noise to be as large (McCandlish et al. 2018,
            https://arxiv.org/abs/1812.06162), infinite where no signal shows. The signal is the product of
            two successive gradients: the parameters' move in one step is left out of account.
        costs: family of strategies -> time of a step, in plain ones.
        finding: ``"scales"``, ``"conflict"`` or ``"none"``.
        strategies: three names, to try in this order, with the reason of each.
    """

    steps: int
    losses: dict[str, float]
    norms: dict[str, float]
    cosines: dict[tuple[str, str], float]
    opposed: dict[tuple[str, str], float]
    noise: dict[str, float]
    costs: dict[str, float] = field(default_factory=dict)

    @property
    def apart(self) -> float:
        """The largest of the norms over the smallest above 0; 1 where there are not two."""
        norms = [norm for norm in self.norms.values() if norm > 0]
        return max(norms) / min(norms) if norms else 1.0

    @property
    def finding(self) -> str:
        """What the rule sees: scales first, since a short gradient's cosines change little."""
        if self.apart >= APART:
            return "scales"
        return "conflict" if min(self.cosines.values(), default=0.0) < OPPOSED else "none"

    @property
    def strategies(self) -> dict[str, str]:
        """Three to try: name -> why."""
        chosen = _TRY[self.finding]
        dear = self.costs.get("Gramian", 1.0) > DEAR
        positive = min(self.losses.values(), default=0.0) > 0
        found = {}
        for name, why in chosen.items():
            if not positive and self.finding == "scales" and name != "pcgrad":
                name, why = {
                    "scale_invariant": ("gradnorm", "norms of one size; losses may be negative")
                }.get(name, ("imtl_g", "equal progress on every task; losses may be negative"))
            if dear and name in _GRAMIAN:
                why += f"; a step takes {self.costs['Gramian']:.1f} plain ones: every=8 makes it cheaper"
            found[name] = why
        return found

    def plain(self) -> dict[str, Any]:
        """All of it in plain values, for JSON; pairs as ``a/b``."""
        fields = asdict(self)
        for name in ("cosines", "opposed"):
            fields[name] = {"/".join(pair): value for pair, value in getattr(self, name).items()}
        fields["noise"] = {task: _finite(value) for task, value in self.noise.items()}
        return {**fields, "apart": self.apart, "finding": self.finding, "strategies": self.strategies}

    def __str__(self) -> str:
        lines = [
            f"{self.steps} steps measured{'' if self.steps >= FEW else f': fewer than {FEW} tell little'}"
        ]
        lines.append(f"{'task':<16}{'loss':>10}{'gradient':>12}{'noise, batches':>16}")
        for task, norm in self.norms.items():
            lines.append(f"{task:<16}{self.losses[task]:>10.4g}{norm:>12.4g}{self.noise[task]:>16.3g}")
        for (a, b), cosine in sorted(self.cosines.items(), key=lambda item: item[1])[:5]:
            lines.append(
                f"cosine of {a} and {b}: {cosine:+.2f}, below 0 in {self.opposed[a, b]:.0%} of the steps"
            )
        if self.costs:
            told = ", ".join(f"{family} {cost:.2f}" for family, cost in self.costs.items())
            lines.append(f"time of a step, in plain ones: {told}")
        return "\n".join([*lines, "", *self._verdict()])

    def _verdict(self) -> list[str]:
        pair, cosine = min(self.cosines.items(), key=lambda item: item[1], default=(("", ""), 0.0))
        said = {
            "scales": f"The gradients' norms are {self.apart:.3g} times apart ({APART:g} or more), and the "
            "longest decides. Try, beside equal weights:",
            "conflict": f"The gradients of {' and '.join(pair)} oppose each other (mean cosine "
            f"{cosine:+.2f}, below {OPPOSED:g}). Try, beside equal weights:",
            "none": f"Norms within a factor of {APART:g}, no mean cosine below {OPPOSED:g}: equal weights "
            "are enough. If you still want to try:",
        }[self.finding]
        lines = [said, *(f"  {name:<16} {why}" for name, why in self.strategies.items())]
        noisy = [task for task, value in self.noise.items() if value > NOISY]
        if noisy:
            lines.append(
                f"Of {', '.join(noisy)} a batch's gradient is mostly noise, and so are its cosines: larger "
                "batches or accumulation come first."
            )
        return lines


def advise(tasks: Sequence[str], looks: Sequence[Mapping[str, Any]], costs: Mapping[str, float]) -> Advice:
    """The advice from the looks at m >= 1 steps, each {"losses", "gram", "ahead", "present"}.

    ``gram`` [m, m] are products of a step's gradients, ``ahead`` task -> the product of its gradient and that
    of the step before, where there was one.
    """
    losses: dict[str, list[float]] = {task: [] for task in tasks}
    squares: dict[str, list[float]] = {task: [] for task in tasks}
    ahead: dict[str, list[float]] = {task: [] for task in tasks}
    cosines: dict[tuple[str, str], list[float]] = {}
    for look in looks:
        names = [tasks[i] for i in look["present"]]
        gram = np.asarray(look["gram"], dtype=np.float64)
        for i, name in enumerate(names):
            losses[name].append(float(look["losses"][i]))
            squares[name].append(float(gram[i, i]))
            for j in range(i):
                size = np.sqrt(gram[i, i] * gram[j, j])
                cosines.setdefault((names[j], name), []).append(float(gram[i, j] / size) if size > 0 else 0.0)
        for name, product in look["ahead"].items():
            ahead[name].append(float(product))
    seen = [task for task in tasks if losses[task]]
    return Advice(
        len(looks),
        {task: statistics.fmean(losses[task]) for task in seen},
        {task: statistics.fmean(squares[task]) ** 0.5 for task in seen},
        {pair: statistics.fmean(values) for pair, values in cosines.items()},
        {pair: statistics.fmean(value < 0 for value in values) for pair, values in cosines.items()},
        {task: _noise(squares[task], ahead[task]) for task in seen},
        dict(costs),
    )


def _noise(squares: Sequence[float], ahead: Sequence[float]) -> float:
    """``(E|g|^2 - |G|^2) / |G|^2``, with the mean of successive products for |G|^2."""
    signal = statistics.fmean(ahead) if ahead else 0.0
    return max(statistics.fmean(squares) / signal - 1, 0.0) if signal > 0 else float("inf")


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
