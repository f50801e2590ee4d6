"""The properties that a class may declare, and what finds a counterexample to each.

All are about the shared parameters' update d, for the gradients J [T, P] and the losses l, with the default
hyperparameters and at the initial state: what a strategy learns or remembers later is not judged, and of
random draws one. Several batches are alike, and there are no validation rows. The cases are fixed: T from 2
to 8, every rank from 1 to T, rows from 1e-6 to 1e6 in length. Zero, and equal, is up to ``TOLERANCE`` times
the natural size of d: its length for orthogonal gradients of the same lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from .cases import of_every_rank, stationary
from .harness import Moment, Stage
from .subject import Subject

TOLERANCE = 1e-4
SCALES = (1e-6, 1e-3, 1e3, 1e6)


class _Player:
    """Gives the update of any moment, at the initial state."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.stages: dict[int, Stage] = {}

    def update(self, moment: Moment) -> np.ndarray:
        """d [P]."""
        n_tasks = len(moment.losses)
        if n_tasks not in self.stages:
            self.stages[n_tasks] = Stage(self.subject.make(n_tasks))
        found = self.stages[n_tasks].propose(moment).update
        self.stages[n_tasks].state.drop()
        return found

    def natural(self, moment: Moment) -> float:
        """The length of d for orthogonal gradients of the same lengths."""
        lengths = np.linalg.norm(moment.jacobian, axis=1, keepdims=True)
        orthogonal = lengths * np.eye(*moment.jacobian.shape)
        return _length(self.update(replace(moment, jacobian=orthogonal)))

    def differ(self, found: np.ndarray, expected: np.ndarray, moment: Moment) -> str | None:
        """How far two updates are apart, if they are; NaN is."""
        gap, size = _length(found - expected), _length(expected)
        if not gap <= TOLERANCE * size:
            size = max(size, self.natural(moment))
        return None if gap <= TOLERANCE * size else f"{gap / size if size else gap:.2g} of its size"


def non_conflicting(subject: Subject) -> Iterator[str]:
    """``g_i . d >= 0`` for every task i: to first order no loss rises. d = 0 fulfils it."""
    play = _Player(subject)
    for moment in [*of_every_rank(subject.sizes), *stationary(subject.sizes)]:
        update = play.update(moment)
        norms = np.linalg.norm(moment.jacobian, axis=1)
        along = moment.jacobian @ update / np.where(norms > 0, norms, 1.0)
        if not along.min() >= -TOLERANCE * play.natural(moment):
            i = int(along.argmin())
            cosine = along[i] / _length(update)
            yield f"{moment}: the cosine of d and the gradient of task {i} is {cosine:.2g}"


def permutation_equivariant(subject: Subject) -> Iterator[str]:
    """The tasks in another order give the same d. With random orders or draws per task it is another."""
    play = _Player(subject)
    for n, moment in enumerate(of_every_rank(subject.sizes)):
        order = np.random.default_rng(n).permutation(len(moment.losses))
        other = replace(moment, jacobian=moment.jacobian[order], losses=moment.losses[order])
        gap = play.differ(play.update(other), play.update(moment), moment)
        if gap:
            yield f"{moment}: with the tasks in the order {order} d differs by {gap}"


def loss_scale_invariant(subject: Subject) -> Iterator[str]:
    """Multiplying the loss of any one task, and so its gradient, by s > 0 leaves d as it is."""
    play = _Player(subject)
    for n, moment in enumerate(of_every_rank(subject.sizes)):
        i, scale = n % len(moment.losses), SCALES[n % len(SCALES)]
        factors = np.where(np.arange(len(moment.losses)) == i, scale, 1.0)
        gap = play.differ(play.update(_scaled(moment, factors)), play.update(moment), moment)
        if gap:
            yield f"{moment}: with the loss of task {i} times {scale:g} d differs by {gap}"


def zero_at_stationary(subject: Subject) -> Iterator[str]:
    """d = 0 wherever ``J^T a = 0`` for some ``a >= 0``, ``a != 0``: also where one gradient is zero."""
    play = _Player(subject)
    for moment in stationary(subject.sizes):
        size, length = play.natural(moment), _length(play.update(moment))
        if not length <= TOLERANCE * size:
            yield f"{moment}: d is not zero, its length is {length:.2g}, {size:.2g} without conflict"


def linear_under_scaling(subject: Subject) -> Iterator[str]:
    """With losses and gradients of task i times ``s_i > 0``, d is linear in s."""
    play = _Player(subject)
    for n, moment in enumerate(of_every_rank(subject.sizes)):
        one, two = 10.0 ** np.random.default_rng(n).uniform(-2, 2, (2, len(moment.losses)))
        parts = play.update(_scaled(moment, one)) + play.update(_scaled(moment, two))
        both = _scaled(moment, one + two)
        gap = play.differ(play.update(both), parts, both)
        if gap:
            yield f"{moment}: d(s + t) differs from d(s) + d(t) by {gap}"


def scale_degree(subject: Subject) -> Iterator[str]:
    """All losses times c multiply d by ``c ** scale_degree``; nothing is said where that is None."""
    play, degree = _Player(subject), declared_degree(subject)
    if degree is None:
        return
    for n, moment in enumerate(of_every_rank(subject.sizes)):
        scale = SCALES[n % len(SCALES)]
        scaled = _scaled(moment, np.full(len(moment.losses), scale))
        gap = play.differ(play.update(scaled), play.update(moment) * scale**degree, scaled)
        if gap:
            yield f"{moment}: with losses times {scale:g} d differs from d * {scale:g}^{degree:g} by {gap}"


def declared_degree(subject: Subject) -> float | None:
    """The scale degree, which may depend on the hyperparameters."""
    return subject.make(subject.sizes[0]).scale_degree if subject.sizes else None


#: name -> what yields counterexamples for a subject
PROPERTIES: dict[str, Callable[[Subject], Iterator[str]]] = {
    function.__name__: function
    for function in (
        non_conflicting,
        permutation_equivariant,
        loss_scale_invariant,
        zero_at_stationary,
        linear_under_scaling,
    )
}


def _scaled(moment: Moment, factors: np.ndarray) -> Moment:
    return replace(moment, jacobian=factors[:, None] * moment.jacobian, losses=factors * moment.losses)


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))
