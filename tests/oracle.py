"""What the tests that compare with TorchJD share: Jacobians, and both libraries' directions on them."""

import numpy as np
import torch

from mtlweights import strategies

T = (2, 3, 5, 10)
KINDS = ("wide", "square", "deficient")
SCALES = (1e-3, 1.0, 1e3)

A = ((1, 0), (-0.5, 0.75**0.5))  # unit norms, 120 degrees
B = ((2, 0), (-1, 1))  # unequal norms, 135 degrees
E2 = ((1, 0), (-2, 0))  # opposed
ASCENT = ((-3, -3, 2), (-2, 1, 1), (-2, 2, 1))  # IMTL-G's formula ascends all three


def jacobian(n_tasks, kind="wide", scale=1.0, seed=0):
    """[T, n]: n = 50, n = T, or a rank of T // 2 in 30 columns."""
    rng = np.random.default_rng([n_tasks, seed])
    if kind == "deficient":
        rank = n_tasks // 2
        return scale * rng.normal(size=(n_tasks, rank)) @ rng.normal(size=(rank, 30))
    return scale * rng.normal(size=(n_tasks, 50 if kind == "wide" else n_tasks))


def jacobians(n_tasks, kinds=KINDS, scales=SCALES, n=2):
    for kind in kinds:
        for scale in scales:
            yield from (jacobian(n_tasks, kind, scale, seed) for seed in range(n))


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def direction(strategy, rows, losses=None):
    """Our direction [n], float64, for the Jacobian ``rows`` [T, n]."""
    rows = np.asarray(rows, dtype=np.float64)
    losses = np.ones(len(rows)) if losses is None else np.asarray(losses, dtype=np.float64)
    if isinstance(strategy, strategies.JacobianStrategy):
        keep_rows(strategy, rows.shape[1])
        out = strategy.direction(torch.from_numpy(rows), torch.from_numpy(losses))
        return (out[0] if isinstance(out, tuple) else out).numpy()
    weights = strategy.weights(rows @ rows.T, losses, np.arange(len(losses)))
    return (weights[0] if isinstance(weights, tuple) else weights) @ rows


def keep_rows(strategy, size):
    """What the Balancer does before the first step: zeros, and one tensor of all columns."""
    if "rows" not in vars(strategy):
        strategy.sizes = [size]
        strategy.rows = {name: torch.zeros(strategy.n_tasks, size).double() for name in strategy.row_state}
        strategy.rows |= {name: torch.zeros(strategy.n_tasks, 1).double() for name in strategy.tensor_state}


def theirs(aggregator, rows):
    """TorchJD's direction [n], in float64."""
    return aggregator(torch.tensor(np.asarray(rows, dtype=np.float64))).detach().numpy()


def apart(one, two, rows):
    """Distance of two directions, in units of the longest row."""
    return np.linalg.norm(one - two) / np.linalg.norm(rows, axis=1).max()


def weights_of(value, losses):
    """The gradient of a scalar in the losses."""
    return torch.autograd.grad(value, losses)[0].numpy()
