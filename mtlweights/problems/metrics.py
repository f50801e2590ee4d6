"""Metrics, on label ids, numbers or label names of the labelled items alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .spans import opens_with_inside, to_iob2


def accuracy(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Share of items [N] whose label id is right."""
    return float(np.mean(predicted == expected))


def macro_f1(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Mean over classes of F1, for label ids [N]; a class neither predicted nor expected is left out."""
    scores = []
    for label in np.union1d(predicted, expected):
        hits = np.sum((predicted == label) & (expected == label))
        scores.append(2 * hits / (np.sum(predicted == label) + np.sum(expected == label)))
    return float(np.mean(scores))


def rmse(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Root mean squared error of numbers [N], in their unit."""
    return float(np.sqrt(np.mean((predicted - expected) ** 2)))


def pearson(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Pearson correlation of numbers [N]; 0.0 where one side is constant, so that a dead model scores 0."""
    if np.ptp(predicted) == 0 or np.ptp(expected) == 0:
        return 0.0
    a, b = predicted - predicted.mean(), expected - expected.mean()
    # Scaled first: the squares of very small deviations would underflow to 0 / 0.
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    return float(np.clip(a @ b / np.sqrt((a @ a) * (b @ b)), -1.0, 1.0))


def mae(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Mean absolute error of numbers [N], in their unit."""
    return float(np.mean(np.abs(predicted - expected)))


def r2(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Share of the variance of ``expected`` [N] that is explained; 0.0 where ``expected`` is constant."""
    total = np.sum((expected - expected.mean()) ** 2)
    return float(1 - np.sum((predicted - expected) ** 2) / total) if total > 0 else 0.0


def rrmse(predicted: np.ndarray, expected: np.ndarray, mean: float = 0.0) -> float:
    """Root of the squared error over that of the training targets' ``mean``, for numbers [N]: 1.0 is no
    better than the mean. Its mean over tasks is aRRMSE (Spyromitros-Xioufis et al. 2016, equation 3).

    1.0 where every ``expected`` is that mean.
    """
    total = np.sum((expected - mean) ** 2)
    return float(np.sqrt(np.sum((predicted - expected) ** 2) / total)) if total > 0 else 1.0


def auroc(scores: np.ndarray, positive: np.ndarray) -> float:
    """Area under the ROC curve of scores [N], for bools [N]: the chance that a positive item has a higher
    score than a negative one, ties counting half. 0.5 where one class has no item: nothing can be ranked."""
    n = len(positive)
    n_positive = int(np.sum(positive))
    if n_positive in (0, n):
        return 0.5
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    above = np.sum(ranks[positive]) - n_positive * (n_positive + 1) / 2
    return float(above / (n_positive * (n - n_positive)))


def average_precision(scores: np.ndarray, positive: np.ndarray) -> float:
    """Mean over the positive items of the precision among the items that score at least as high, for scores
    and bools [N]; 0.0 where no item is positive."""
    if not positive.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(positive[order])
    # equal scores are taken together: all of them have the precision at the last one
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    gained = np.diff(hits[last], prepend=0)
    return float(np.sum(gained * hits[last] / (last + 1)) / hits[-1])


def mse(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Mean squared error of a solution [N] against the reference."""
    return float(np.mean((predicted - expected) ** 2))


def relative_l2(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Norm of a solution's error over that of the reference, both [N] and the reference not 0 everywhere."""
    return float(np.linalg.norm(predicted - expected) / np.linalg.norm(expected))


def value(predicted: np.ndarray, expected: np.ndarray) -> float:
    """Mean of the objective's values [N]; their lower bounds [N] do not count."""
    return float(np.mean(predicted))


def exact_match(predicted: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> float:
    """Share of the sequences that are as they should be, piece by piece."""
    return float(np.mean([list(a) == list(b) for a, b in zip(predicted, expected, strict=True)]))


def piece_f1(predicted: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> float:
    """Mean over the sequences of the F1 of their pieces, whatever the order (Rajpurkar et al. 2016, 6.1)."""
    found = []
    for a, b in zip(predicted, expected, strict=True):
        same = sum((Counter(a) & Counter(b)).values())
        found.append(2 * same / (len(a) + len(b)) if a or b else 1.0)
    return float(np.mean(found))


def span_f1(predicted: Sequence[Sequence[str]], expected: Sequence[Sequence[str]]) -> float:
    """Micro F1 over the entity spans of sentences of IOB2 labels.

    A span counts if its type and both ends are right (seqeval's strict mode): a predicted ``I-`` that
    continues no span of its type starts none. Where expected labels open a span so (IOB1), it starts one on
    both sides, as in conlleval: no expected span is left out. 0.0 where no span is expected or predicted.

    Raises:
        ImportError: seqeval is not installed.
    """
    try:
        from seqeval.metrics import f1_score
        from seqeval.scheme import IOB2
    except ImportError as error:
        raise ImportError("span_f1 needs seqeval: pip install mtlweights[bench]") from error
    if not any(label != "O" for sentence in (*predicted, *expected) for label in sentence):
        return 0.0  # seqeval warns and fails on labels without a single span
    if opens_with_inside(expected):
        predicted, expected = [*map(to_iob2, predicted)], [*map(to_iob2, expected)]
    return float(
        f1_score([*map(list, expected)], [*map(list, predicted)], mode="strict", scheme=IOB2, zero_division=0)
    )
