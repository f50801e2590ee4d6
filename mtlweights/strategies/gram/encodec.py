"""EnCodec's loss balancer (Defossez et al. 2022)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from ..base import GramStrategy
from ..hyperparameters import check_above, check_from_to, preference_vector
from ..solvers import equal_norms
from .averages import RunningMeans


class EnCodec(GramStrategy):
    """EnCodec's balancer: every gradient at the model's output takes its set share of one total length.

    With ``<|g_i|>`` the moving average of the norm of task i's gradient and p the preference,

    ``w_i = total_norm (p_i / sum_k p_k) / <|g_i|>``.

    So p says what share of the gradient a loss has, in whatever unit it is.

    A. Defossez, J. Copet, G. Synnaeve, Y. Adi, "High Fidelity Neural Audio Compression", TMLR 2023,
    https://arxiv.org/abs/2210.13438, section 3.4, equation 5.

    The paper takes the gradients at the decoder's output x, not in the parameters: that is
    ``Balancer("encodec", tasks, model, gradients="features", features=decoder)``. Without it they are those
    in the shared parameters. Parameters behind x, of one loss alone, get their plain gradient; the authors'
    code gives them none, since its backward starts at x.

    Departures: the norm is that of the batch's whole gradient, ``per_batch_item=False`` in the authors' code;
    its default averages the norms of the items' own gradients, which are about the root of the batch size
    shorter, for every task alike. Nothing is added to the norms (there 1e-12); a gradient that has always
    been zero gets weight 0. The shares are among the tasks present, whose averages alone move.

    Args:
        n_tasks: T.
        preference: T numbers p of at least 0. Default: all ones.
        total_norm: > 0, R, the length all gradients would have together if they agreed.
        decay: in [0, 1], of the moving average; 1 is the mean over all steps (authors: 0.999).

    Raises ValueError for an argument out of range.
    """

    paper = "Defossez et al. 2022, https://arxiv.org/abs/2210.13438"
    family = "gradient norm"
    space = {"decay": (0.0, 0.999)}  # noqa: RUF012
    scale_degree = 0
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    preference: Tensor

    def __init__(
        self,
        n_tasks: int,
        *,
        preference: Sequence[float] | None = None,
        total_norm: float = 1.0,
        decay: float = 0.999,
    ) -> None:
        super().__init__(n_tasks)
        check_above(0, total_norm=total_norm)
        check_from_to(0, 1, decay=decay)
        self.total_norm = total_norm
        self.register_buffer("preference", preference_vector(preference, n_tasks, 1.0))
        self.norms = RunningMeans(n_tasks, decay)

    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> np.ndarray:
        """Weights [m], at least 0; moves the averages of the tasks present."""
        norms = self.norms.take(np.sqrt(np.diagonal(gram)), present)
        share = self.preference.numpy()[present]
        total = share.sum()
        return share / (total if total > 0 else 1.0) * equal_norms(norms, self.total_norm)
