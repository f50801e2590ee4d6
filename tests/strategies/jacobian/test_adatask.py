"""AdaTask: one Adam per task."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.jacobian.helpers import Run, first, near, random_jacobians
from tests.toys import names, toy


def test_adatask_without_memory_is_the_sum_of_signs():
    jacobian = random_jacobians(1)[0]
    assert first("adatask", jacobian) == near(np.sign(jacobian).sum(0), rel=1e-4)


def test_adatask_is_one_adam_of_torch_per_task():
    betas = (0.9, 0.999)
    run, lr = Run("adatask", 3, sizes=[3, 4], betas=betas), 1.0
    tracks = [torch.nn.Parameter(torch.zeros(7)) for _ in range(3)]
    adams = [torch.optim.Adam([p], lr=lr, betas=betas, eps=0) for p in tracks]
    for k, jacobian in enumerate(random_jacobians(25)):
        present = [0, 1, 2] if k % 3 else [0, 2]
        before = [p.detach().clone() for p in tracks]
        for i in present:
            tracks[i].grad = torch.tensor(jacobian[i], dtype=torch.float32)
            adams[i].step()
        expected = sum(b - p.detach() for b, p in zip(before, tracks, strict=True))
        d = run.step(jacobian[present], present=None if k % 3 else present)
        assert d == near(expected, rel=2e-4, abs=2e-5)


def test_adatask_element_that_never_had_a_gradient_stays():
    assert first("adatask", [(0, 1), (0, -2)]) == near((0, 0))
    assert first("adatask", [(0, 3), (0, 4)]) == near((0, 2))


def test_adatask_small_gradients_count_in_full():
    """1e-25 squared is 0 in float32."""
    run = Run("adatask", 2)
    for _ in range(3):
        d = run.step([(1e-25, 1), (1e-25, 1)])
    assert d == near((2, 2), rel=1e-4)


def test_adatask_warns_of_an_optimizer_that_scales_again():
    model = toy(2)
    balancer = Balancer("adatask", names(2), model)
    with pytest.warns(UserWarning, match=r"AdaTask scales its own updates: .* not Adam"):
        balancer.attach(torch.optim.Adam(model.parameters()))
