"""Krum and Multi-Krum (Blanchard et al. 2017)."""

from __future__ import annotations

import numpy as np

from ..base import GramStrategy
from ..hyperparameters import check_whole


class Krum(GramStrategy):
    """Krum: the gradient nearest to its neighbours, robust against outliers.

    A gradient's score is the sum of its squared distances to its ``T - f - 2`` nearest others, f the
    number of gradients that may be arbitrary; d is the mean of the ``n_selected`` gradients of
    smallest score (more than one: Multi-Krum).

    P. Blanchard, E. M. El Mhamdi, R. Guerraoui, J. Stainer, "Machine Learning with Adversaries:
    Byzantine Tolerant Gradient Descent", NeurIPS 2017,
    https://papers.nips.cc/paper/2017/hash/f4b9ec30ad9f68f89b29639786cb62ef-Abstract.html, section 4.

    Distances are squared, as in the paper; some public code sums the distances. Its guarantee needs
    ``T >= 2 f + 3``. Departures: at least one neighbour counts, so that few tasks can do; equal
    scores share the weight, where the paper takes the smallest index, so that the order of the tasks
    does not matter. With fewer tasks present than ``n_selected`` all are taken.

    Args:
        n_tasks: T.
        n_byzantine: f, from 0 to T - 1.
        n_selected: from 1 to T.

    Raises ValueError for numbers out of range.
    """

    paper = (
        "Blanchard et al. 2017, "
        "https://papers.nips.cc/paper/2017/hash/f4b9ec30ad9f68f89b29639786cb62ef-Abstract.html"
    )
    family = "gramian"
    space = {}  # noqa: RUF012
    properties = frozenset({"permutation_equivariant"})

    def __init__(self, n_tasks: int, *, n_byzantine: int = 0, n_selected: int = 1) -> None:
        super().__init__(n_tasks)
        check_whole(0, n_byzantine=n_byzantine)
        check_whole(1, n_selected=n_selected)
        if n_byzantine >= n_tasks or n_selected > n_tasks:
            raise ValueError(
                f"n_byzantine should be below {n_tasks}, the number of tasks, and n_selected at most that, "
                f"found {n_byzantine} and {n_selected}."
            )
        self.n_byzantine, self.n_selected = n_byzantine, n_selected

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0, summing to 1."""
        m, squared = len(gram), np.diagonal(gram)
        distances = np.maximum(squared[:, None] + squared - 2 * gram, 0.0)
        neighbours = min(max(m - self.n_byzantine - 2, 1), m - 1)
        # Column 0 is the gradient itself.
        scores = np.sort(distances, axis=1)[:, 1 : neighbours + 1].sum(axis=1)
        wanted = min(self.n_selected, m)
        last = np.sort(scores)[wanted - 1]
        rounding = 1e-12 * squared.sum()
        sure, tied = scores < last - rounding, np.abs(scores - last) <= rounding
        return (sure + tied * (wanted - sure.sum()) / tied.sum()) / wanted
