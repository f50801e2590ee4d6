"""GO4Align (Shen et al. 2024)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..base import ALL, Index, LossStrategy
from ..hyperparameters import check_at_least, check_whole
from .positive import usable

#: The largest ratio of all losses to one, for float32's sake.
LARGEST = 1e30


class GO4Align(LossStrategy):
    """GO4Align: tasks with alike risk are grouped, and a group shares one weight.

    Each step ``p <- p exp(-step_size l)``, normalised to sum to 1, from 1/T; the risk indicator of task i is
    ``(sum_k l_k / l_i) p_i``; k-means puts the indicators into ``groups`` clusters, and the weight of a task
    is the mean of its cluster.

    J. Shen, Q. Wang, Z. Xiao, N. van Noord, M. Worring, "GO4Align: Group Optimization for Multi-Task
    Alignment", NeurIPS 2024, https://arxiv.org/abs/2404.06486; with the minus sign, as in the authors' code,
    p grows for the tasks with the *smaller* losses, very slowly. Their code starts k-means at random; for
    numbers on a line the best clusters are found exactly, so that is done here.

    Sums are over the tasks present; the p of the others stays, and those present keep their part of the
    sum. A loss of 0 counts as the smallest positive one of its step; a negative one is refused.

    Args:
        n_tasks: T.
        groups: >= 1, clusters (authors: by data set); as many as tasks, or more, is no grouping.
        step_size: >= 0 (authors: 1e-4).
    """

    paper = "Shen et al. 2024, https://arxiv.org/abs/2404.06486"
    family = "loss"
    space = {"step_size": (1e-5, 1e-2, "log")}  # noqa: RUF012
    scale_degree = None  # p knows the unit of the losses; the rest does not
    positive_losses = True
    properties = frozenset({"permutation_equivariant"})

    p: Tensor

    def __init__(self, n_tasks: int, *, groups: int = 2, step_size: float = 1e-4) -> None:
        super().__init__(n_tasks)
        check_whole(1, groups=groups)
        check_at_least(0, step_size=step_size)
        self.groups, self.step_size = groups, step_size
        self.register_buffer("p", torch.full((n_tasks,), 1 / n_tasks))

    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The weighted sum of ``losses`` [m]; moves p."""
        values, p = losses.detach(), self.p[present]
        share = torch.softmax(torch.log(p) - self.step_size * values, 0)
        self.p[present] = (p.sum() * share).to(self.p)
        positive = usable(values)
        smallest = torch.where(positive, values, torch.inf).min()
        safe = torch.where(positive, values, torch.where(positive.any(), smallest, 1.0))
        ratio = (safe.sum() / safe).clamp(max=LARGEST)
        return (cluster_means(ratio * share, self.groups) * losses).sum()


def cluster_means(x: Tensor, k: int) -> Tensor:
    """Each x [m] replaced by the mean of its cluster, for the k clusters of least total variance.

    Exact, and without a host read: on a line clusters are intervals, so the best first j + 1 clusters of
    the smallest i + 1 numbers follow from the best first j (dynamic programming).
    """
    m = len(x)
    if k >= m:
        return x
    value, order = x.sort()
    relative = value / value.abs().max()
    at = torch.arange(m, device=x.device)
    # spread[first, last]: the sum of squared distances to the mean, of one interval
    inside = (at[:, None, None] <= at) & (at <= at[None, :, None])  # [first, last, member]
    size = inside.sum(-1).clamp(min=1)
    mean = (inside * relative).sum(-1) / size
    spread = (inside * (relative - mean[..., None]) ** 2).sum(-1)
    spread = torch.where(at[:, None] <= at, spread, torch.inf)  # [first, last]
    # best[i]: least total spread of the first j + 1 clusters, which end at i; j = 0 now, one more each round
    best, starts = spread[0], []
    for _ in range(k - 1):
        before = torch.cat([best.new_full((1,), torch.inf), best[:-1]])
        best, start = (before[:, None] + spread).min(0)
        starts.append(start)
    # back from the end: the last cluster starts where the best total had it, the one before ends before that
    cluster, last = torch.zeros_like(at), torch.full_like(at[:1], m - 1)
    for start in reversed(starts):
        first = start[last]
        cluster, last = cluster + (at >= first), first - 1
    same = cluster[:, None] == cluster
    means = (same * value).sum(1) / same.sum(1)
    return torch.zeros_like(x).scatter(0, order, means)
