"""GradVac: its targets, and vaccination written out."""

import math

import numpy as np
import pytest

from mtlweights.strategies.gram.pcgrad import random_orders
from tests.strategies.helpers import A, make


def test_gradvac_second_step():
    """Case A: the averages are -0.25 after the first step, and become the cosines of the second."""
    strategy = make("gradvac", 2, beta=0.5)
    jacobian = np.array(A)
    gram = jacobian @ jacobian.T
    strategy.weights(gram, np.ones(2), np.arange(2))
    assert strategy.target.tolist() == pytest.approx(np.array([[0, -0.25], [-0.25, 0]]))
    corrected = jacobian[0] + (strategy.weights(gram, np.ones(2), np.arange(2))[1] - 1) * jacobian[1]
    assert corrected @ jacobian[1] / np.linalg.norm(corrected) == pytest.approx(-0.25, abs=1e-6)
    assert strategy.target[0, 1].item() == pytest.approx(-0.375)


def vaccinated(jacobian, target, orders, beta):
    """GradVac on the gradients themselves, as the paper writes it."""
    total, target = np.zeros(jacobian.shape[1]), target.copy()
    for i, order in enumerate(orders):
        p = jacobian[i].copy()
        for j in order:
            cosine = p @ jacobian[j] / np.linalg.norm(p) / np.linalg.norm(jacobian[j])
            t = target[i, j]
            if cosine < t:
                gain = t * math.sqrt(1 - cosine**2) - cosine * math.sqrt(1 - t**2)
                size = np.linalg.norm(p) / np.linalg.norm(jacobian[j]) / math.sqrt(1 - t**2)
                p += size * gain * jacobian[j]
            target[i, j] = (1 - beta) * t + beta * cosine
        total += p
    return total, target


@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_gradvac_equals_vaccination_of_the_gradients(n_tasks):
    rng = np.random.default_rng(n_tasks)
    strategy, target = make("gradvac", n_tasks, beta=0.3), np.zeros((n_tasks, n_tasks))
    common = rng.normal(size=12)
    for step in range(6):
        strategy.step.fill_(step)
        jacobian = rng.normal(size=(n_tasks, 12)) + common * (step % 3)
        weights = strategy.weights(jacobian @ jacobian.T, np.ones(n_tasks), np.arange(n_tasks))
        expected, target = vaccinated(jacobian, target, random_orders(n_tasks, 0, step), 0.3)
        assert weights @ jacobian == pytest.approx(expected, rel=1e-9)
        assert strategy.target.numpy() == pytest.approx(target, abs=1e-12)
