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
from .harness import Case, Harness
from .subject import Subject

TOLERANCE = 1e-4
SCALES = (1e-6, 1e-3, 1e3, 1e6)


class _Updates:
    """Gives the update of any case, at the initial state."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.harnesses: dict[int, Harness] = {}

    def update(self, case: Case) -> np.ndarray:
        """d [P]."""
        n_tasks = len(case.losses)
        if n_tasks not in self.harnesses:
            self.harnesses[n_tasks] = Harness(self.subject.make(n_tasks))
        found = self.harnesses[n_tasks].propose(case).update
        self.harnesses[n_tasks].state.drop()
        return found

    def natural(self, case: Case) -> float:
        """The length of d for orthogonal gradients of the same lengths."""
        lengths = np.linalg.norm(case.jacobian, axis=1, keepdims=True)
        orthogonal = lengths * np.eye(*case.jacobian.shape)
        return _length(self.update(replace(case, jacobian=orthogonal)))

    def differ(self, found: np.ndarray, expected: np.ndarray, case: Case) -> str | None:
        """How far two updates are apart, if they are; NaN is."""
        gap, size = _length(found - expected), _length(expected)
        if not gap <= TOLERANCE * size:
            size = max(size, self.natural(case))
        return None if gap <= TOLERANCE * size else f"{gap / size if size else gap:.2g} of its size"


def non_conflicting(subject: Subject) -> Iterator[str]:
    """``g_i . d >= 0`` for every task i: to first order no loss rises. d = 0 fulfils it."""
    updates = _Updates(subject)
    for case in [*of_every_rank(subject.sizes), *stationary(subject.sizes)]:
        update = updates.update(case)
        norms = np.linalg.norm(case.jacobian, axis=1)
        along = case.jacobian @ update / np.where(norms > 0, norms, 1.0)
        if not along.min() >= -TOLERANCE * updates.natural(case):
            i = int(along.argmin())
            cosine = along[i] / _length(update)
            yield f"{case}: the cosine of d and the gradient of task {i} is {cosine:.2g}"


def permutation_equivariant(subject: Subject) -> Iterator[str]:
    """The tasks in another order give the same d. With random orders or draws per task it is another."""
    updates = _Updates(subject)
    for n, case in enumerate(of_every_rank(subject.sizes)):
        order = np.random.default_rng(n).permutation(len(case.losses))
        other = replace(case, jacobian=case.jacobian[order], losses=case.losses[order])
        gap = updates.differ(updates.update(other), updates.update(case), case)
        if gap:
            yield f"{case}: with the tasks in the order {order} d differs by {gap}"


def loss_scale_invariant(subject: Subject) -> Iterator[str]:
    """Multiplying the loss of any one task, and so its gradient, by s > 0 leaves d as it is."""
    updates = _Updates(subject)
    for n, case in enumerate(of_every_rank(subject.sizes)):
        i, scale = n % len(case.losses), SCALES[n % len(SCALES)]
        factors = np.where(np.arange(len(case.losses)) == i, scale, 1.0)
        gap = updates.differ(updates.update(_scaled(case, factors)), updates.update(case), case)
        if gap:
            yield f"{case}: with the loss of task {i} times {scale:g} d differs by {gap}"


def zero_at_stationary(subject: Subject) -> Iterator[str]:
    """d = 0 wherever ``J^T a = 0`` for some ``a >= 0``, ``a != 0``: also where one gradient is zero."""
    updates = _Updates(subject)
    for case in stationary(subject.sizes):
        size, length = updates.natural(case), _length(updates.update(case))
        if not length <= TOLERANCE * size:
            yield f"{case}: d is not zero, its length is {length:.2g}, {size:.2g} without conflict"


def linear_under_scaling(subject: Subject) -> Iterator[str]:
    """With losses and gradients of task i times ``s_i > 0``, d is linear in s."""
    updates = _Updates(subject)
    for n, case in enumerate(of_every_rank(subject.sizes)):
        one, two = 10.0 ** np.random.default_rng(n).uniform(-2, 2, (2, len(case.losses)))
        parts = updates.update(_scaled(case, one)) + updates.update(_scaled(case, two))
        both = _scaled(case, one + two)
        gap = updates.differ(updates.update(both), parts, both)
        if gap:
            yield f"{case}: d(s + t) differs from d(s) + d(t) by {gap}"


def scale_degree(subject: Subject) -> Iterator[str]:
    """All losses times c multiply d by ``c ** scale_degree``; nothing is said where that is None."""
    updates, degree = _Updates(subject), declared_degree(subject)
    if degree is None:
        return
    for n, case in enumerate(of_every_rank(subject.sizes)):
        scale = SCALES[n % len(SCALES)]
        scaled = _scaled(case, np.full(len(case.losses), scale))
        gap = updates.differ(updates.update(scaled), updates.update(case) * scale**degree, scaled)
        if gap:
            yield f"{case}: with losses times {scale:g} d differs from d * {scale:g}^{degree:g} by {gap}"


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


def _scaled(case: Case, factors: np.ndarray) -> Case:
    return replace(case, jacobian=factors[:, None] * case.jacobian, losses=factors * case.losses)


def _length(vector: np.ndarray) -> float:
    return float(np.linalg.norm(vector))
