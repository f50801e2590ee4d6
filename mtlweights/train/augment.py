"""Training examples changed at random, anew in every epoch: words and rows of a table."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..problems import Example, Problem
from ..specs import parse_way

_DEFAULTS: dict[str, dict[str, float]] = {
    "replace": {"p": 0.1},
    "drop": {"p": 0.1},
    "swap": {"p": 0.1},
    "noise": {"scale": 0.1},
    "mixup": {"alpha": 0.2},
}
WORDS, TABLE = ("replace", "drop", "swap"), ("noise", "mixup")


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training batch.

    =============  ===========================================================================================
    ``replace:p``  a word is another one of the training split, with probability p; it keeps its label
    ``drop:p``     a word is left out with its labels, never the last one that is left
    ``swap:p``     a word changes places with the next one, and so do their labels
    ``noise``      normal noise of ``scale`` standard deviations on every column
    ``mixup``      each row is mixed with another of the batch, m x + (1 - m) x', m drawn from Beta(alpha,
                   alpha), and so are their losses (Zhang et al., "mixup", ICLR 2018, eq. 1)
    =============  ===========================================================================================
    """

    way: str
    value: float

    @classmethod
    def parse(cls, spec: str) -> Augmentation:
        """``"replace:p=0.1"``.

        Raises:
            ValueError: another way or option, or a value out of range.
        """
        way, options = parse_way("augment", spec, _DEFAULTS)
        ((key, value),) = {**_DEFAULTS[way], **options}.items()
        most = 1 if key == "p" else 100
        if type(value) not in (int, float) or not 0 < value <= most:
            raise ValueError(f"{key} of augment={way} should be above 0 and at most {most}, found {value!r}.")
        return cls(way, float(value))


class Augment:
    """An `Augmentation` of a problem's training examples.

    Draws are from Python's and torch's global generators, whose state is in a run's checkpoint.

    Raises:
        ValueError: words of a table, or a table's columns of sentences.
    """

    def __init__(self, problem: Problem, how: Augmentation) -> None:
        self.how, self.problem = how, problem
        first = problem.splits["train"][0]["input"]
        inner = first[0] if isinstance(first, tuple) and first else first
        words = isinstance(inner, list) and all(isinstance(word, str) for word in inner)
        if words != (how.way in WORDS) or (not words and "x" not in problem.inputs([first])):
            ways = WORDS if words else TABLE
            raise ValueError(
                f"augment={how.way} does not suit {problem.name!r}: use one of {', '.join(ways)}"
            )
        self.wordy = [task.name for task in problem.tasks if task.kind == "tokens"]
        sentences = (e["input"] for e in problem.splits["train"]) if words else ()
        self.known = [
            w for given in sentences for s in (given if isinstance(given, tuple) else (given,)) for w in s
        ]

    def examples(self, batch: Sequence[Example]) -> list[Example]:
        """The examples with their words changed; rows of a table as they are."""
        return [self._changed(example) for example in batch] if self.how.way in WORDS else [*batch]

    def inputs(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A table's inputs under noise."""
        if self.how.way != "noise":
            return inputs
        return {**inputs, "x": inputs["x"] + self.how.value * torch.randn_like(inputs["x"])}

    def mixed(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], Tensor, float]:
        """A table's inputs mixed with those of other rows: inputs, the other rows' numbers, and m."""
        m = random.betavariate(self.how.value, self.how.value)
        others = torch.randperm(len(inputs["x"])).to(inputs["x"].device)
        return {**inputs, "x": m * inputs["x"] + (1 - m) * inputs["x"][others]}, others, m

    def _changed(self, example: Example) -> Example:
        given, targets = example["input"], dict(example["targets"])
        if isinstance(given, tuple):
            return {"input": tuple(map(self._sentence, given)), "targets": targets}
        if self.how.way == "replace":
            return {"input": self._replaced(given), "targets": targets}
        places = self._places(len(given))
        for name in self.wordy:
            if targets.get(name) is not None:
                targets[name] = [targets[name][k] for k in places]
        return {"input": [given[k] for k in places], "targets": targets}

    def _sentence(self, sentence: list[str]) -> list[str]:
        if self.how.way == "replace":
            return self._replaced(sentence)
        return [sentence[k] for k in self._places(len(sentence))]

    def _replaced(self, sentence: Sequence[str]) -> list[str]:
        return [self._word() if random.random() < self.how.value else word for word in sentence]

    def _word(self) -> str:
        return str(random.choice(self.known))

    def _places(self, n: int) -> list[int]:
        """Numbers of the words that are left, in their new order."""
        if self.how.way == "drop":
            return [k for k in range(n) if random.random() >= self.how.value] or [*range(n)][:1]
        places, k = [*range(n)], 0
        while k + 1 < n:
            if random.random() < self.how.value:
                places[k], places[k + 1] = places[k + 1], places[k]
                k += 1
            k += 1
        return places
