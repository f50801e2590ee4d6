"""Task signals behind noisy averages of unit gradients: Gaussian posterior, coordinate ascent, its bound.

Model, for every element p of the gradient, times sqrt(P): signals ``s_p ~ N(0, K)`` over the tasks, and n
draws ``u_p = s_p + e_p`` with independent ``e_p ~ N(0, diag(noise))``. Every task's draws have mean square 1,
and A = ``moments`` [m, m] is the Gramian of their mean. q(s_p) is a Gaussian with mean ``gain @ mean of u_p``
and covariance ``cov``. All tensors are of one floating-point type.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

LEAST_NOISE = 1e-3  # of a gradient's mean square, which is 1


def posterior(signal: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """gain and cov [m, m] of the exact posterior, where the mean of u has noise variances ``noise`` [m].

    ``cov = (signal^-1 + diag(noise)^-1)^-1``, ``gain = cov diag(noise)^-1``, without an inverse; directions
    in which ``signal`` is not positive count as having none.
    """
    root = noise.sqrt()
    values, vectors = torch.linalg.eigh(signal / root / root[:, None])
    values = values.clamp(min=0)
    kernel = (vectors * (values / (1 + values))) @ vectors.T
    return root[:, None] * kernel / root, root[:, None] * kernel * root


def sweep(
    moments: Tensor, signal: Tensor, noise: Tensor, draws: float, pull: float
) -> tuple[Tensor, Tensor, Tensor]:
    """One coordinate ascent of :func:`bound` in q, then K, then the noise.

    Returns K [m, m] and the noise [m] as updated, and the covariance [m, m] of q.
    """
    gain, cov = posterior(signal, noise / draws)
    explained = gain @ moments
    second = explained @ gain.T + cov
    level = moments.diagonal().mean()
    updated = (1 - pull) * second + pull * level * torch.eye(len(second)).to(second)
    residual = 1 - 2 * explained.diagonal() + second.diagonal()
    return (updated + updated.T) / 2, residual.clamp(min=LEAST_NOISE), cov


def bound(
    moments: Tensor, gain: Tensor, cov: Tensor, signal: Tensor, noise: Tensor, draws: float, pull: float
) -> Tensor:
    """The evidence lower bound [] of the n draws of one element, plus the log prior of K.

    ``E_q[log p(u | s)] + E_q[log p(s | K)] + H(q)``, with an inverse Wishart prior on K that is worth
    pull / (1 - pull) draws of s and centred on the level of A, up to the prior's constant.
    """
    explained = gain @ moments
    second = explained @ gain.T + cov
    residual = 1 - 2 * explained.diagonal() + second.diagonal()
    fit = -draws / 2 * (torch.log(2 * math.pi * noise) + residual / noise).sum()
    inverse, size = torch.linalg.inv(signal), torch.logdet(signal)
    prior = -(len(cov) * math.log(2 * math.pi) + size + (inverse * second).sum()) / 2
    entropy = (len(cov) * (1 + math.log(2 * math.pi)) + torch.logdet(cov)) / 2
    level = moments.diagonal().mean()
    total: Tensor = fit + prior + entropy - pull / (1 - pull) / 2 * (size + level * inverse.trace())
    return total


def correlations(covariance: Tensor, variances: Tensor) -> Tensor:
    """``covariance / sqrt(variances_i variances_j)`` in [-1, 1], 1 on the diagonal, 0 where undefined."""
    scale = torch.where(variances > 0, variances, torch.inf).rsqrt()
    found = (covariance * (scale[:, None] * scale)).clamp(-1, 1)
    return found.fill_diagonal_(1.0)
