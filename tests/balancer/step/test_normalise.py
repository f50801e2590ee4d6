"""``Balancer(normalise=)``: the strategy and the direction see gradients in units of their own."""

import pytest
import torch

from mtlweights import Balancer

ROWS = torch.tensor([[2.0, 0, 1], [-1e3, 2e3, 0], [1e-3, 1e-3, 5e-3]], dtype=torch.float64)


def step(name, rows, offsets=(1.0, 4.0, 0.5), **options):
    """.grad of one vector, of losses that are linear in it."""
    at = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    balancer = Balancer(name, ["a", "b", "c"], shared=[at], **options)
    losses = {t: row @ at + k for t, row, k in zip(balancer.tasks, rows, offsets, strict=True)}
    balancer(losses).backward()
    return at.grad


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "upgrad", "cagrad", "nash_mtl", "config"])
def test_the_direction_is_that_of_the_normalised_gradients(name):
    unit = ROWS / ROWS.norm(dim=1, keepdim=True)
    torch.testing.assert_close(step(name, ROWS, normalise="l2"), step(name, unit), rtol=1e-6, atol=1e-9)
    logs = ROWS / torch.tensor([[1.0], [4.0], [0.5]])
    torch.testing.assert_close(step(name, ROWS, normalise="loss"), step(name, logs), rtol=1e-6, atol=1e-9)


def test_zero_is_left_and_a_negative_loss_refused():
    rows = ROWS * torch.tensor([[1.0], [1.0], [0.0]])
    assert step("pcgrad", rows, normalise="l2").isfinite().all()
    assert step("pcgrad", rows, (1.0, 0.0, 1.0), normalise="loss").isfinite().all()
    with pytest.raises(ValueError, match="needs losses of at least 0, found -2"):
        step("pcgrad", ROWS, (1.0, -2.0, 1.0), normalise="loss")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("mgda", "l1", "normalise should be None, 'l2' or 'loss', found 'l1'"),
        ("uw", "l2", "UncertaintyWeighting looks at losses alone"),
        ("graddrop", "l2", "GradDrop has a way of its own"),
        ("modo", "l2", "several batches"),
        ("auto_lambda", "l2", "validation gradients"),
    ],
)
def test_what_cannot_be_normalised_is_refused(name, value, message):
    with pytest.raises(ValueError, match=message):
        Balancer(name, ["a", "b"], normalise=value)
