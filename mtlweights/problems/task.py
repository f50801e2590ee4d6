"""Task: a name, a loss, metrics and their direction. It knows nothing of other tasks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from . import metrics

MISSING = -100  #: target id of padding and of items without a label; NaN for regression

#: the metrics each kind of task may be scored by
METRICS: dict[str, tuple[str, ...]] = {
    "tokens": ("accuracy", "span_f1", "macro_f1"),
    "classification": ("accuracy", "macro_f1", "auroc", "average_precision"),
    "regression": ("rmse", "pearson", "mae", "r2", "rrmse"),
    "objective": ("value", "relative_l2", "mse"),
    "sequence": ("exact_match", "piece_f1"),
}
RANKINGS = ("auroc", "average_precision")  #: of two classes, by the odds of the second
NUMBERS = ("regression", "objective")  #: the kinds whose output is one number, and that have no labels
LOWER_IS_BETTER = frozenset({"rmse", "mae", "rrmse", "value", "relative_l2", "mse"})
IN_UNITS = frozenset({"rmse", "mae", "value", "mse"})  #: not to be averaged over tasks
LEAST_UNIT = 0.1  #: of accuracy: the least distance from 0 to 1 of a normalised score


@dataclass(frozen=True)
class Task:
    """One task of a model.

    ====================  ====================  ======================  =======
    kind                  output                target                  missing
    ====================  ====================  ======================  =======
    ``tokens``            logits [B, W, C]      ids [B, W], one a word  -100
    ``classification``    logits [B, C]         ids [B]                 -100
    ``regression``        values [B]            values [B], raw unit    NaN
    ``objective``         values [B]            lower bounds [B]        NaN
    ``sequence``          logits [B, L, V]      ids [B, L], end piece   -100
    ====================  ====================  ======================  =======

    A sequence is another text, in pieces of a tokenizer. Their ids are the target, and in prediction the
    output, -100 behind the end; it has no labels.

    An objective that is scored by ``relative_l2`` or ``mse`` has a reference solution as the target of dev
    and test, and its model gives the solution there, see `mtlweights.problems.data.physics`.

    Attributes:
        metrics: any of ``METRICS[kind]``; the first is the one a model is selected on.
        labels: class names, in the order of the logits; empty for regression and objectives.
        untrained: the first metric of a constant prediction (majority class, mean), from training data.
        target: the value of the first metric that counts as 1 in :meth:`normalised`; 0.0 suits ``rmse``.
        mean, std: of a regression's training targets. A head gives ``mean + std * z``, in raw units.
        unit: what a regression's errors are divided by in the loss: 1 for squared raw units, ``std`` for a
            loss that does not depend on the unit.
        scale: what the loss is multiplied by.
        crf: of labels of words, whether a `mtlweights.problems.models.crf.CRFHead` gives them.
        auxiliary: it is trained and scored, but the epoch that is kept does not depend on it.

    Raises:
        ValueError: a blank name, unknown kind, metrics that do not suit it, missing labels, labels that are
            not IOB2 under ``span_f1`` or not two under ``auroc`` or ``average_precision``, ``target`` equal
            to ``untrained``, ``std``, ``unit`` or ``scale`` not above 0.
    """

    name: str
    kind: Literal["tokens", "classification", "regression", "objective", "sequence"]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    untrained: float = 0.0
    target: float = 1.0
    mean: float = 0.0
    std: float = 1.0
    unit: float = 1.0
    scale: float = 1.0
    crf: bool = False
    auxiliary: bool = False

    def __post_init__(self) -> None:
        where = f"task {self.name!r}:"
        if not isinstance(self.name, str) or not self.name.strip():
            raise ValueError(f"{where} a name is expected, a text that is not blank.")
        if self.kind not in METRICS:
            raise ValueError(f"{where} kind should be one of {', '.join(METRICS)}, found {self.kind!r}.")
        known = METRICS[self.kind]
        if not self.metrics or not set(self.metrics) <= set(known):
            raise ValueError(
                f"{where} metrics of {self.kind} are {', '.join(known)}, found {self.metrics!r}."
            )
        bare = self.kind in (*NUMBERS, "sequence")
        if bare == bool(self.labels) or len(self.labels) == 1:
            raise ValueError(
                f"{where} {self.kind} takes {'no' if bare else 'two or more'} labels, "
                f"found {len(self.labels)}."
            )
        if self.crf and self.kind != "tokens":
            raise ValueError(f"{where} a CRF is for labels of words, found {self.kind}.")
        if "span_f1" in self.metrics and not all(map(is_iob2, self.labels)):
            raise ValueError(f"{where} span_f1 needs labels O, B-TYPE and I-TYPE, found {self.labels!r}.")
        if len(self.labels) != 2 and (ranking := [m for m in self.metrics if m in RANKINGS]):
            raise ValueError(f"{where} {ranking[0]} takes two labels, found {len(self.labels)}.")
        if self.target == self.untrained:
            raise ValueError(f"{where} target and untrained are both {self.target}: nothing to normalise by.")
        for key in ("std", "unit", "scale"):
            if not 0 < getattr(self, key) < math.inf:
                raise ValueError(f"{where} {key} should be above 0 and finite, found {getattr(self, key)}.")

    @property
    def higher_is_better(self) -> bool:
        """Direction of the first metric."""
        return self.metrics[0] not in LOWER_IS_BETTER

    @property
    def n_outputs(self) -> int:
        """Width of the head: the number of labels, 1 without labels."""
        return len(self.labels) or 1

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss [] over the labelled items, times ``scale``: cross-entropy, squared error over ``unit``,
        or output less lower bound.

        Without a labelled item it is 0 and still part of the graph, not NaN.
        """
        if self.kind in NUMBERS:
            labelled = ~target.isnan()
            # where(), not a product with the mask: NaN * 0 is NaN
            error = torch.where(labelled, output - target, torch.zeros_like(output)).float()
            total = (error if self.kind == "objective" else (error / self.unit).square()).sum()
        else:
            labelled = target != MISSING
            logits = output.reshape(-1, output.shape[-1]).float()
            ids = target.reshape(-1)
            total = functional.cross_entropy(logits, ids, ignore_index=MISSING, reduction="sum")
        mean = total / labelled.sum().clamp(min=1)
        return mean if self.scale == 1 else self.scale * mean

    def count(self, target: Tensor) -> int:
        """Number of labelled items."""
        labelled = ~target.isnan() if self.kind in NUMBERS else target != MISSING
        return int(labelled.sum())

    def score(self, outputs: Sequence[Tensor], targets: Sequence[Tensor]) -> dict[str, float]:
        """Every metric over the labelled items of all batches; NaN where there is none."""
        if not any(self.count(target) for target in targets):
            return dict.fromkeys(self.metrics, math.nan)
        if self.kind == "sequence":
            answers = [sequence for output in outputs for sequence in _sequences(output)]
            right = [sequence for target in targets for sequence in _sequences(target)]
            known = [pair for pair in zip(answers, right, strict=True) if pair[1]]
            return {metric: getattr(metrics, metric)(*zip(*known, strict=True)) for metric in self.metrics}
        batches = [self._items(output, target) for output, target in zip(outputs, targets, strict=True)]
        predicted, expected, odds = (np.concatenate(side) for side in zip(*batches, strict=True))
        scores = {}
        for metric in self.metrics:
            if metric == "span_f1":
                scores[metric] = metrics.span_f1(*self._sentences(outputs, targets))
            elif metric == "rrmse":
                scores[metric] = metrics.rrmse(predicted, expected, self.mean)
            elif metric in RANKINGS:
                scores[metric] = getattr(metrics, metric)(odds, expected == 1)
            else:
                scores[metric] = getattr(metrics, metric)(predicted, expected)
        return scores

    def normalised(self, value: float) -> float:
        """A value of the first metric as a score in (-1, 1]: 0 = untrained, 1 = target reached.

        A mean over tasks selects the epoch, so that no task may outweigh the others: below 0 the score x is
        ``x / (1 - x)``, which falls on and never reaches -1. And what counts as 1 of accuracy is at least
        `LEAST_UNIT`: where one class holds nearly all items, a single one more that is wrong would else
        cost as much as all a task can gain.
        """
        unit = self.target - self.untrained
        score = (value - self.untrained) / unit
        if self.metrics[0] == "accuracy" and abs(unit) < LEAST_UNIT:
            score = 1 - (self.target - value) / math.copysign(LEAST_UNIT, unit)
        return 1 / (1 - score) - 1 if score < 0 else score

    def _items(self, output: Tensor, target: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Predictions and targets of the labelled items, flat, and the log odds of the last of two classes;
        numbers in float64."""
        output, target = output.detach().cpu(), target.detach().cpu()
        if self.kind in NUMBERS:
            labelled = ~target.isnan()
            found = output[labelled].double().numpy()
            return found, target[labelled].double().numpy(), found
        labelled = target != MISSING
        logits = output[labelled]
        odds = (logits[:, -1] - logits[:, 0]).double().numpy()
        return logits.argmax(-1).numpy(), target[labelled].numpy(), odds

    def _sentences(
        self, outputs: Sequence[Tensor], targets: Sequence[Tensor]
    ) -> tuple[list[list[str]], list[list[str]]]:
        """Label names, predicted and expected, of every sentence with a labelled word."""
        predicted, expected = [], []
        for output, target in zip(outputs, targets, strict=True):
            for row, ids in zip(output, target, strict=True):
                found, right, _ = self._items(row, ids)
                if len(right):
                    predicted.append([self.labels[i] for i in found])
                    expected.append([self.labels[i] for i in right])
        return predicted, expected


def _sequences(ids: Tensor) -> list[list[int]]:
    """The pieces of every sequence, without what is missing."""
    return [[int(piece) for piece in row if piece != MISSING] for row in ids.tolist()]


def is_iob2(label: str) -> bool:
    """Whether a label is ``O``, ``B-TYPE`` or ``I-TYPE``."""
    return label == "O" or (label[:2] in ("B-", "I-") and len(label) > 2)


def mean_normalised(tasks: Sequence[Task], scores: Mapping[str, Mapping[str, float]]) -> float:
    """Mean of the first metric, normalised, over the tasks that are not auxiliary (all, where all are);
    ``scores`` is task -> metric -> value."""
    chosen = [task for task in tasks if not task.auxiliary] or tasks
    return float(np.mean([task.normalised(scores[task.name][task.metrics[0]]) for task in chosen]))
