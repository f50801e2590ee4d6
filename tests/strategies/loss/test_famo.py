"""FAMO: weights, the logits' gradient, and when they move."""

import copy

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.helpers import LOSSES, NAN, loss_weights, make
from tests.toys import assert_same_state, batch, losses_of, names, toy


def test_famo_weights():
    value, weights = loss_weights(make("famo", 3))
    assert value == pytest.approx(0.792168)
    assert loss_weights(make("famo", 3), np.array(LOSSES) * 1e5)[1] == pytest.approx(weights, rel=1e-5)


def linear_balancer(**options):
    """Losses that are plain numbers times one parameter."""
    w = torch.nn.Parameter(torch.ones(()))
    optimizer = torch.optim.SGD([w], lr=0.0)
    balancer = Balancer("famo", names(3), **options).attach(optimizer)

    def step(losses, after=None):
        optimizer.zero_grad()
        balancer({f"t{i}": w * x for i, x in enumerate(losses)}).backward()
        optimizer.step()
        if after is not None:
            balancer.after_step(lambda: {f"t{i}": w * x for i, x in enumerate(after)})
        return balancer.strategy.logits.tolist()

    return balancer, step


AFTER = (0.4, 1.9, 7.8)
GRADIENT = (0.041075, -0.016208, -0.024867)  # authors' code, measured


def test_famo_gradient():
    strategy = make("famo", 3)
    loss_weights(strategy)
    strategy.after_step(torch.tensor(AFTER))
    assert strategy.logits.grad.tolist() == pytest.approx(GRADIENT, abs=1e-6)
    value = strategy.combine(torch.tensor(LOSSES))
    assert torch.autograd.grad(value, strategy.logits)[0].tolist() == [0, 0, 0]  # taken already
    value = strategy.combine(torch.tensor(AFTER))
    assert torch.autograd.grad(value, strategy.logits)[0].tolist() == pytest.approx(GRADIENT, abs=1e-6)


def test_famo_decays_only_what_moves():
    strategy = make("famo", 3, gamma=0.5)
    with torch.no_grad():
        strategy.logits.copy_(torch.tensor([0.2, -0.4, 0.2]))
    loss_weights(strategy, LOSSES[:2], np.array([0, 1]))
    strategy.after_step(torch.tensor(LOSSES))
    assert strategy.logits.grad.tolist() == pytest.approx([0.1, -0.2, 0])


def test_famo_moves_at_once_after_a_step_and_once_per_step():
    balancer, step = linear_balancer(gamma=0.0)
    twin = torch.zeros(3, requires_grad=True)
    adam = torch.optim.Adam([twin], lr=0.025)
    assert step(LOSSES, AFTER) == pytest.approx([-0.025, 0.025, 0.025], abs=1e-6)
    twin.grad = torch.tensor(GRADIENT)
    adam.step()
    for losses, after in (((1.0, 3.0, 2.0), (0.9, 2.9, 1.5)), ((0.7, 2.0, 2.0), (0.9, 1.9, 1.2))):
        found = step(losses, after)
        delta = torch.log(torch.tensor(losses)) - torch.log(torch.tensor(after))
        adam.zero_grad()
        (torch.softmax(twin, 0) * delta).sum().backward()
        adam.step()
        assert found == pytest.approx(twin.tolist(), abs=1e-6)
    assert balancer.state_dict()["updates"].tolist() == [3, 3, 3]


def test_famo_takes_the_next_batch_without_after_step():
    balancer, step = linear_balancer(gamma=0.0)
    assert step(LOSSES) == [0, 0, 0]
    assert balancer.state_dict()["updates"].tolist() == [0, 0, 0]
    assert step(AFTER) == pytest.approx([-0.025, 0.025, 0.025], abs=1e-6)


@pytest.mark.parametrize("after", [(NAN, 1.0, 1.0), (0.4, float("inf"), 7.8)])
def test_famo_does_not_move_on_losses_that_are_not_finite(after):
    balancer, step = linear_balancer()
    step(LOSSES, AFTER)
    before = copy.deepcopy(balancer.state_dict())
    assert step(LOSSES, after) == before["strategy"]["logits"].tolist()
    assert_same_state(balancer.state_dict()["moments"], before["moments"])


def test_famo_skipped_step_takes_no_difference():
    """The scaler drops the second step: there is nothing that its losses could be compared to."""
    model = toy(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    balancer = Balancer("famo", names(3), model).attach(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for poison in (False, True):
        optimizer.zero_grad()
        scaler.scale(balancer(losses_of(model, batch()))).backward()
        before = copy.deepcopy(balancer.strategy.state_dict())
        if poison:
            model.heads[1].weight.grad[0, 0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
        balancer.after_step(lambda: losses_of(model, batch()))
    assert before["logits"].abs().min() > 0.02
    assert_same_state(balancer.strategy.state_dict(), before)


def test_famo_absent_task_keeps_its_logit_and_its_last_loss():
    balancer, step = linear_balancer(gamma=0.0)
    step(LOSSES)
    found = step(AFTER[:2])
    assert found == pytest.approx([-0.025, 0.025, 0], abs=1e-6)
    assert balancer.strategy.before.tolist() == pytest.approx(np.log([0.4, 1.9, 8.0]))
