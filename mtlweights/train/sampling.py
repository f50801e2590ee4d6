"""How often each task's data set is drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..specs import parse_way

BATCHES = ("mixed", "task")


@dataclass(frozen=True)
class Sampling:
    """How often each task's data set is drawn from, with n_t examples that are labelled for task t.

    =================  =======================================================================================
    ``proportional``   with probability proportional to n_t
    ``temperature``    to n_t^(1/t), ``t`` = 2 (Arivazhagan et al., "Massively multilingual neural
                       machine translation in the wild", 2019, who take 5); t = 1 is proportional
    ``annealed``       to n_t^a, a = 1 - ``fall`` (e - 1) / (E - 1) in epoch e of E, ``fall`` = 0.8: from
                       proportional to nearly equal (Stickland and Murray, "BERT and PALs", ICML 2019, section
                       3.3)
    ``round_robin``    one task after the other
    =================  =======================================================================================

    Attributes:
        way: one of these.
        value: ``t`` or ``fall``.
        batches: "mixed", or "task": a batch has the examples, and the labels, of one task.
    """

    way: str
    value: float = 0.0
    batches: str = "mixed"

    @classmethod
    def parse(cls, spec: str) -> Sampling:
        """``"temperature:t=5,batches=task"``.

        Raises:
            ValueError: another way or option, or a value out of range.
        """
        way, options = parse_way("sampling", spec, _DEFAULTS)
        chosen = {**_DEFAULTS[way], **options}
        batches = chosen.pop("batches")
        if batches not in BATCHES:
            raise ValueError(f"batches of sampling={way} should be mixed or task, found {batches!r}.")
        for key, value in chosen.items():
            number = type(value) in (int, float) and 0 <= value <= (1 if key == "fall" else 1e6)
            if not number or (key == "t" and value < 1):
                expected = "a number from 0 to 1" if key == "fall" else "a number from 1"
                raise ValueError(f"{key} of sampling={way} should be {expected}, found {value!r}.")
        return cls(way, float(next(iter(chosen.values()), 0.0)), batches)

    def shares(self, sizes: Sequence[int], epoch: int, epochs: int) -> list[float]:
        """The probability of each task in an epoch, from 1, whose data sets have these sizes."""
        power = 1.0 if self.way == "proportional" else 0.0
        if self.way == "temperature":
            power = 1 / self.value
        elif self.way == "annealed":
            power = 1 - self.value * min((epoch - 1) / max(epochs - 1, 1), float(epochs > 1))
        weights = [float(size) ** power for size in sizes]
        return [weight / sum(weights) for weight in weights]


_DEFAULTS: dict[str, dict[str, Any]] = {
    "proportional": {"batches": "mixed"},
    "temperature": {"t": 2.0, "batches": "mixed"},
    "annealed": {"fall": 0.8, "batches": "mixed"},
    "round_robin": {"batches": "mixed"},
}
