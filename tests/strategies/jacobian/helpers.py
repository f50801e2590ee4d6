"""Steps of a strategy on the Jacobian, as the engine makes them."""

import numpy as np
import pytest
import torch

from mtlweights.strategies.jacobian import factor_analysis
from tests.strategies.helpers import make


class Run:
    """Steps a strategy as the engine does: rows of the tasks present lent, what it left kept."""

    def __init__(self, strategy, n_tasks=None, *, sizes=None, **hyperparameters):
        self.strategy = make(strategy, n_tasks, **hyperparameters) if isinstance(strategy, str) else strategy
        self.sizes, self.kept = sizes, {}
        self.weights = None

    def step(self, jacobian, losses=None, present=None, commit=True):
        jacobian = torch.as_tensor(np.array(jacobian), dtype=torch.float32)
        losses = torch.ones(len(jacobian)) if losses is None else torch.tensor(losses, dtype=torch.float32)
        at = slice(None) if present is None else np.array(present)
        T, P, s = self.strategy.n_tasks, jacobian.shape[1], self.strategy
        s.sizes = [P] if self.sizes is None else self.sizes
        for states, width in ((s.row_state, P), (s.tensor_state, len(s.sizes))):
            for key in states:
                self.kept.setdefault(key, jacobian.new_zeros(T, width))
        for key, each in s.memory.items():
            self.kept.setdefault(key, jacobian.new_zeros(T if each else 1, P))
        s.rows = {key: x if key in s.memory else x[at] for key, x in self.kept.items()}
        out = s.direction(jacobian, losses, at)
        d, weights = out if isinstance(out, tuple) else (out, None)
        self.weights = None if weights is None else weights.double().numpy()
        assert d.shape == (P,) and d.dtype == jacobian.dtype
        if commit:
            for key, new in s.rows.items():
                self.kept[key] = self.kept[key].clone()
                self.kept[key][slice(None) if key in s.memory else at] = new
            s.step += 1
        return d.double().numpy()


def first(name, jacobian, losses=None, **hyperparameters):
    return Run(name, len(jacobian), **hyperparameters).step(jacobian, losses)


def random_jacobians(n, m=3, p=7, seed=0):
    return np.random.default_rng(seed).normal(size=(n, m, p))


def near(expected, rel=1e-5, abs=1e-6):
    return pytest.approx(np.asarray(expected), rel=rel, abs=abs)


def objective(moments, signal, noise, n, pull):
    """The bound of `variational` at the best posterior."""
    return float(
        factor_analysis.bound(moments, *factor_analysis.posterior(signal, noise / n), signal, noise, n, pull)
    )
