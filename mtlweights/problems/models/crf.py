"""A linear-chain conditional random field as a head for words, over partly labelled sentences too.

J. Lafferty, A. McCallum, F. Pereira, "Conditional Random Fields", ICML 2001; words without a label are summed
over, as in Y. Tsuboi et al., "Training Conditional Random Fields Using Incomplete Annotations", COLING 2008,
https://aclanthology.org/C08-1113, equation 3.

Letters: B sentences, W words of the longest, C labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..task import MISSING, Task
from .encoders import States
from .heads import TokenHead

NEVER = -1e30  #: score of a label that a word cannot have


class CRFHead(TokenHead):
    """Scores of labels, of neighbours, and of the first and last label.

    `forward` gives the labels' scores [B, W, C]. A word that the encoder has no state for is as if it were
    not there.
    """

    def __init__(self, output: nn.Module, n: int) -> None:
        super().__init__(output)
        self.start, self.end = (nn.Parameter(torch.empty(n).uniform_(-0.1, 0.1)) for _ in range(2))
        self.transitions = nn.Parameter(torch.empty(n, n).uniform_(-0.1, 0.1))  # from, to

    def loss(self, task: Task, scores: Tensor, target: Tensor, states: States) -> Tensor:
        """Negative log-likelihood [] over the number of labelled words, times the task's scale."""
        mask = _mask(states)
        labels = torch.arange(scores.shape[-1], device=scores.device)
        known = (target != MISSING) & mask
        allowed = (target.unsqueeze(-1) == labels) | ~known.unsqueeze(-1)
        every = self.total(scores, mask)
        right = self.total(scores.masked_fill(~allowed, NEVER), mask)
        return task.scale * (every - right).sum() / known.sum().clamp(min=1)

    def total(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Logarithm of the summed exponentials of all labellings' scores [B], 0 for an empty sentence."""
        last = self._scan(scores, mask, self.start, self.transitions, torch.logsumexp)[:, -1]
        return torch.logsumexp(last + self.end, -1) * mask.any(1)

    def decode(self, scores: Tensor, states: States) -> Tensor:
        """For each word and label the highest score of a labelling with it [B, W, C].

        The best label of every word together is Viterbi's labelling.
        """
        mask = _mask(states)
        there = self._scan(scores, mask, self.start, self.transitions, torch.amax)
        back = self._scan(scores.flip(1), mask.flip(1), self.end, self.transitions.T, torch.amax).flip(1)
        return (there + back - scores) * mask.unsqueeze(-1)

    def _scan(
        self, scores: Tensor, mask: Tensor, start: Tensor, steps: Tensor, combine: Callable[..., Tensor]
    ) -> Tensor:
        """What all labellings up to each word and label come to [B, W, C]."""
        at, found = torch.zeros_like(scores[:, 0]), []
        begun = torch.zeros_like(mask[:, :1])
        for word, here in zip(scores.unbind(1), mask.split(1, 1), strict=True):
            on = combine(at.unsqueeze(2) + steps, 1)
            at = torch.where(here, torch.where(begun, on, start) + word, at)
            begun = begun | here
            found.append(at)
        return torch.stack(found, 1)


def _mask(states: States) -> Tensor:
    assert states.mask is not None
    return states.mask
