"""What the tests of strategies share: Jacobians, losses, and a strategy asked as the engine asks it."""

import numpy as np
import torch

from mtlweights import strategies

T = (2, 3, 5, 10)
KINDS = ("wide", "square", "deficient")
SCALES = (1e-3, 1.0, 1e3)
NAN = float("nan")

LOSSES = (0.5, 2.0, 8.0)
A = ((1, 0), (-0.5, 0.75**0.5))  # unit norms, 120 degrees
B = ((2, 0), (-1, 1))  # unequal norms, 135 degrees
C = ((1, 0), (0, 10))  # orthogonal, 1 to 10
C2 = ((1, 0), (5, 5 * 3**0.5))  # 60 degrees, 1 to 10
D = ((1, 1), (1, 1))  # identical
E = ((1, 0), (-1, 0))  # opposed
E2 = ((1, 0), (-2, 0))
F = ((1, 0), (0, 0))  # one task is done
ASCENT = ((-3, -3, 2), (-2, 1, 1), (-2, 2, 1))  # IMTL-G's formula ascends all three
MGDA_WEIGHTS = [(A, (0.5, 0.5)), (B, (0.4, 0.6)), (C, (100 / 101, 1 / 101)), (C2, (1, 0))]


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


def pairs(n=200, seed=0):
    """Two gradients of very different lengths."""
    rng = np.random.default_rng(seed)
    for _ in range(n):
        yield rng.normal(size=(2, 4)) * 10.0 ** rng.uniform(-2, 2, size=(2, 1))


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def weigh(strategy, jacobian, losses=None, **hyperparameters):
    """The trunk's weights [T] of a GramStrategy, or of one made by name."""
    jacobian = np.asarray(jacobian, dtype=np.float64)
    losses = np.ones(len(jacobian)) if losses is None else np.asarray(losses, dtype=np.float64)
    if isinstance(strategy, str):
        strategy = make(strategy, len(jacobian), **hyperparameters)
    weights = strategy.weights(jacobian @ jacobian.T, losses, np.arange(len(losses)))
    return weights[0] if isinstance(weights, tuple) else weights


def direction(strategy, rows, losses=None, **hyperparameters):
    """Our direction [n], float64, for the Jacobian ``rows`` [T, n]; the strategy, or its name."""
    rows = np.asarray(rows, dtype=np.float64)
    if not isinstance(strategy, strategies.JacobianStrategy):
        return weigh(strategy, rows, losses, **hyperparameters) @ rows
    losses = np.ones(len(rows)) if losses is None else np.asarray(losses, dtype=np.float64)
    keep_rows(strategy, rows.shape[1])
    out = strategy.direction(torch.from_numpy(rows), torch.from_numpy(losses))
    return (out[0] if isinstance(out, tuple) else out).numpy()


def keep_rows(strategy, size):
    """What the Balancer does before the first step: zeros, and one tensor of all columns."""
    if "rows" not in vars(strategy):
        strategy.sizes = [size]
        strategy.rows = {name: torch.zeros(strategy.n_tasks, size).double() for name in strategy.row_state}
        strategy.rows |= {name: torch.zeros(strategy.n_tasks, 1).double() for name in strategy.tensor_state}
        heights = {name: strategy.n_tasks if each else 1 for name, each in strategy.memory.items()}
        strategy.rows |= {name: torch.zeros(n, size).double() for name, n in heights.items()}


def theirs(aggregator, rows):
    """TorchJD's direction [n], in float64."""
    return aggregator(torch.tensor(np.asarray(rows, dtype=np.float64))).detach().numpy()


def apart(one, two, rows):
    """Distance of two directions, in units of the longest row."""
    return np.linalg.norm(one - two) / np.linalg.norm(rows, axis=1).max()


# losses


def weights_of(value, losses):
    """The gradient of a scalar in the losses."""
    return torch.autograd.grad(value, losses)[0].numpy()


def loss_weights(strategy, losses=LOSSES, present=slice(None)):
    """(objective, weights) of a loss strategy: the weights are the objective's gradient."""
    losses = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    value = strategy.combine(losses, present)
    return value.item(), weights_of(value, losses)


def feed(name, *steps, **hyperparameters):
    """A strategy after the given steps, and the weights of the last one."""
    strategy = make(name, len(steps[0]), **hyperparameters)
    for losses in steps:
        weights = loss_weights(strategy, losses)[1]
    return strategy, weights


def end_epoch(strategy, *epochs):
    for means in epochs:
        strategy.end_epoch(np.array(means, dtype=np.float64), None)


def scored(name, *scores, **hyperparameters):
    """A strategy after epochs with these validation scores."""
    strategy = make(name, len(scores[0]), **hyperparameters)
    for row in scores:
        strategy.end_epoch(np.full(len(row), NAN), np.array(row, dtype=np.float64))
    return strategy
