"""Running averages of a number per task, each over that task's own steps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn


class RunningMeans(nn.Module):
    """Means whose terms count for ``decay`` times less with every step: a task's first one is its first term.

    Args:
        n_tasks: T.
        decay: in [0, 1]; 0 is the last term alone, 1 the plain mean.
    """

    total: Tensor
    count: Tensor

    def __init__(self, n_tasks: int, decay: float) -> None:
        super().__init__()
        self.decay = decay
        for name in ("total", "count"):
            self.register_buffer(name, torch.zeros(n_tasks, dtype=torch.float64))

    def take(self, values: np.ndarray, present: np.ndarray) -> np.ndarray:
        """The means [m] of the tasks ``present`` [m], with these ``values`` [m]."""
        total, count = self.total.numpy(), self.count.numpy()
        total[present] = self.decay * total[present] + values
        count[present] = self.decay * count[present] + 1
        return np.asarray(total[present] / count[present])
