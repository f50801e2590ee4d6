"""A metric under a bootstrap of the test examples, from sums per example: a thousand draws cost little."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from ...problems.spans import opens_with_inside, to_iob2

DRAWS = 200

Array = NDArray[np.float64]


def weights(examples: int, draws: int = DRAWS, seed: int = 0) -> Array:
    """How often each of the examples [E] is in each draw [B, E]: with replacement, as many as there are."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(examples, np.full(examples, 1 / examples), size=draws).astype(float)


def resampled(
    metric: str,
    predicted: NDArray[np.generic],
    expected: NDArray[np.generic],
    sizes: NDArray[np.int64],
    labels: Sequence[str],
    drawn: Array,
) -> Array | None:
    """The metric of every draw [B]; None for a metric that sums per example do not give.

    Args:
        metric: a name of `problems.METRICS`.
        predicted, expected: of the labelled items, one example's after the other's [N].
        sizes: labelled items of each example [E].
        labels: class names, for spans.
        drawn: see `weights`.
    """
    if metric not in _SUMS:
        return None
    sums, value = _SUMS[metric]
    items = sums(predicted, expected, sizes, labels)
    if metric != "span_f1":  # of items; spans are counted per example
        owner = np.repeat(np.arange(len(sizes)), sizes)
        per_example = np.zeros((len(sizes), items.shape[1]))
        np.add.at(per_example, owner, items)
        items = per_example
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(value((drawn @ items).T), dtype=float)


def _right(p: Array, e: Array, *_: object) -> Array:
    return np.stack([p == e, np.ones(len(p))], axis=1).astype(float)


def _squares(p: Array, e: Array, *_: object) -> Array:
    return np.stack([(p.astype(float) - e) ** 2, np.ones(len(p))], axis=1)


def _moments(p: Array, e: Array, *_: object) -> Array:
    x, y = p.astype(float) - p.mean(), e.astype(float) - e.mean()
    return np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)


def _classes(p: Array, e: Array, *_: object) -> Array:
    own, right = (side[:, None] == np.union1d(p, e) for side in (p, e))
    return np.concatenate([own & right, own, right], axis=1).astype(float)


def _spans(p: Array, e: Array, sizes: NDArray[np.int64], labels: Sequence[str]) -> Array:
    """Spans right, predicted and expected of each example [E, 3], by type and both ends."""
    names, ends = np.asarray(labels), np.cumsum(sizes)
    predicted, expected = (
        [names[side[end - size : end].astype(int)] for size, end in zip(sizes, ends, strict=True)]
        for side in (p, e)
    )
    if opens_with_inside(expected):
        predicted, expected = [*map(to_iob2, predicted)], [*map(to_iob2, expected)]
    pairs = [(_found(own), _found(right)) for own, right in zip(predicted, expected, strict=True)]
    return np.array([[len(own & right), len(own), len(right)] for own, right in pairs], dtype=float)


def _found(sentence: Sequence[str]) -> set[tuple[str, int, int]]:
    """The spans of IOB2 labels; an ``I-`` that continues no span of its type starts none."""
    spans, kind, begin = set(), "", 0
    for place, label in enumerate([*sentence, "O"]):
        if kind and label != f"I-{kind}":
            spans.add((kind, begin, place))
            kind = ""
        if label.startswith("B-"):
            kind, begin = label[2:], place
    return spans


def _pearson(s: Array) -> Array:
    n, x, y, xx, yy, xy = s
    return np.asarray(np.nan_to_num((n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))))


def _macro(s: Array) -> Array:
    hits, predicted, expected = np.split(s, 3)
    there = predicted + expected > 0
    scores = np.where(there, 2 * hits / np.where(there, predicted + expected, 1), 0)
    return np.asarray(scores.sum(0) / there.sum(0))


_SUMS: dict[str, tuple[Callable[..., Array], Callable[[Array], Array]]] = {
    "accuracy": (_right, lambda s: s[0] / s[1]),
    "rmse": (_squares, lambda s: np.sqrt(s[0] / s[1])),
    "pearson": (_moments, _pearson),
    "macro_f1": (_classes, _macro),
    "span_f1": (_spans, lambda s: np.nan_to_num(2 * s[0] / (s[1] + s[2]))),
}
