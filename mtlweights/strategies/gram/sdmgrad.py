"""SDMGrad, stochastic direction-oriented multi-objective gradient descent (Xiao, Ban, Ji 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above, check_at_least, check_fraction, check_whole, preference_vector
from ..solvers import momentum_steps, stable_step
from .modo import among_present, on_third_batch

#: The step size of w where it converges.
LR = 0.3


class SDMGrad(GramStrategy):
    """SDMGrad: the shortest combination of gradients near a wanted one, from independent batches.

    w minimises ``|J' z|^2 / 2``, ``z = w + lambda w_0``, over the simplex, and ``d = J' z / (1 + lambda)``.
    w_0 is a preference: lambda = 0 is MGDA, large lambda the preferred (by default the mean) gradient. J is
    that of three independent batches: w takes ``iterations`` projected gradient steps along ``J_1 J_2' z``,
    and d is made of J_3. w goes on from the last training step.

    P. Xiao, H. Ban, K. Ji, "Direction-oriented Multi-objective Learning: Simple and Provable Stochastic
    Algorithms", NeurIPS 2023, https://arxiv.org/abs/2305.18409, algorithm 1.

    From the authors' code: momentum in w's steps, from zero at each training step; one pair of batches for
    all of them; ``J_1 J_2'`` divided by the squared mean gradient norm, so that d follows the scale of the
    losses exactly (the mean here is over both batches). In that code all three batches are the last one, as
    they share a buffer.

    Departures: their step size of w, 10, is far above what converges on normalised gradients: w jumps between
    corners of the simplex, and for random gradients ``|J' z|^2`` ends at 2 (T = 2) to 10 (T = 10) times its
    minimum. By default it is 0.3 here, and less where that would not converge either, as for ten correlated
    tasks (`solvers.stable_step`); a number given as ``lr`` is used as it is. Heads get the mean of the three
    plain gradients, the worth of one batch as the trunk does; in the authors' code their sum.

    One optimizer step takes three backwards, each of its own micro-batch and T passes, with the factor 1/3
    of any accumulation. With tasks missing, the rule runs on the shares that the tasks present have among
    themselves, and what they have in all stays.

    Args:
        n_tasks: T.
        regularisation: lambda, >= 0 (authors: 0.3 for supervised tasks, 0.6 otherwise).
        lr: > 0, step size of w; None: 0.3 or less, as above.
        momentum: in [0, 1), of w's steps (authors' code: 0.5).
        iterations: >= 1, steps of w per training step (authors' code: 20).
        preference: w_0, T positive numbers, taken relative to their sum. Default: all equal.

    Raises ValueError for numbers out of range or an unusable preference.
    """

    paper = "Xiao, Ban, Ji 2023, https://arxiv.org/abs/2305.18409"
    family = "gramian"
    space = {"regularisation": (0.01, 10.0, "log")}  # noqa: RUF012
    batches = 3
    properties = frozenset({"permutation_equivariant"})

    preference: Tensor
    share: Tensor  #: w [T]

    def __init__(
        self,
        n_tasks: int,
        *,
        regularisation: float = 0.3,
        lr: float | None = None,
        momentum: float = 0.5,
        iterations: int = 20,
        preference: Sequence[float] | None = None,
    ) -> None:
        super().__init__(n_tasks)
        check_at_least(0, regularisation=regularisation)
        if lr is not None:
            check_above(0, lr=lr)
        check_fraction(momentum=momentum)
        check_whole(1, iterations=iterations)
        self.regularisation, self.lr, self.momentum = regularisation, lr, momentum
        self.iterations = iterations
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0, positive=True))
        self.register_buffer("share", torch.full((n_tasks,), 1 / n_tasks, dtype=torch.float64))

    def weights(
        self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Trunk and heads, [3m] each, from ``gram`` [3m, 3m]; the trunk's weights sum to 1."""
        stored = self.share.numpy()
        wanted = self.regularisation * among_present(self.preference.numpy()[present])[1]
        total, share = among_present(stored[present])
        share = self._descend(gram, share, wanted)
        stored[present] = total * share
        return on_third_batch((share + wanted) / (1 + self.regularisation))

    def _descend(self, gram: np.ndarray, share: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        m = len(share)
        norm = np.sqrt(np.diagonal(gram)[: 2 * m]).mean()
        if not norm > 0:
            return share
        products = gram[:m, m : 2 * m] / norm**2
        lr = min(LR, stable_step(products, self.momentum)) if self.lr is None else self.lr
        return momentum_steps(products, products @ wanted, share, lr, self.momentum, self.iterations)
