"""Strategies of several batches: rows stacked, and the window that they always have."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from mtlweights.strategies import GramStrategy
from tests.toys import batch, flat_rows, losses_of, naive_rows, names, shared_of, toy


class Double(GramStrategy):
    """Two batches: the weights of the second are the inner products with the first; remembers its input."""

    batches = 2

    def weights(self, gram, losses, present):
        m = len(gram) // 2
        Double.seen = gram.copy(), losses.copy(), present
        return np.concatenate([np.zeros(m), gram[:m, m:].sum(1)])


def test_rows_of_two_batches_are_stacked():
    model = toy(3)
    balancer = Balancer(Double, names(3), model)
    one, two = batch(seed=1), batch(seed=2)
    parts = [flat_rows(model, data, (0, 2)) for data in (one, two)]
    head = [model.heads[2].weight]
    plain = [naive_rows(losses_of(model, data, (2,)).values(), head) for data in (one, two)]
    (balancer(losses_of(model, one, (0, 1, 2))) / 2).backward()
    assert all(p.grad is None for p in model.parameters())
    (balancer(losses_of(model, two, (0, 2))) / 2).backward()  # task 1 sits it out
    gram, losses, present = Double.seen
    stacked = torch.cat(parts)
    assert gram == pytest.approx((stacked @ stacked.T).numpy(), rel=1e-5)
    assert present.tolist() == [0, 2]
    both = [list(losses_of(model, data, (0, 2)).values()) for data in (one, two)]
    assert losses == pytest.approx([(a.item() + b.item()) / 2 for a, b in zip(*both, strict=True)], rel=1e-6)
    weights = (parts[0] @ parts[1].T).sum(1)
    found = torch.cat([p.grad.flatten() for p in shared_of(model)]).double()
    torch.testing.assert_close(found, weights @ parts[1], rtol=1e-5, atol=1e-5)
    # heads="plain": the mean of both batches
    head = (plain[0][0][0] + plain[1][0][0]) / 2
    torch.testing.assert_close(model.heads[2].weight.grad.double(), head, rtol=1e-5, atol=1e-6)
    assert model.heads[1].weight.grad is None
    assert [float(w) for w in balancer.weights.values()] == pytest.approx(weights.tolist(), rel=1e-5)


def test_four_micro_batches_are_two_batches_of_two():
    model = toy(2)
    balancer = Balancer(Double, names(2), model, accumulation_steps=4)
    for seed in range(4):
        balancer.backward(losses_of(model, batch(seed=seed)), gradient=torch.tensor(0.25))
    one, two = ((flat_rows(model, batch(seed=k)) + flat_rows(model, batch(seed=k + 2))) / 2 for k in (0, 1))
    found = torch.cat([p.grad.flatten() for p in shared_of(model)]).double()
    torch.testing.assert_close(found, (one @ two.T).sum(1) @ two, rtol=1e-4, atol=1e-5)


def test_no_task_in_both_batches_leaves_no_gradient():
    model = toy(2)
    balancer = Balancer(Double, names(2), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer.backward(losses_of(model, batch(), (0,)))
    balancer.backward(losses_of(model, batch(), (1,)))
    assert all(p.grad is None for p in model.parameters())
    optimizer.step()
    assert int(balancer.strategy.step) == 0


def test_non_finite_loss_in_one_batch_spoils_the_step():
    model = toy(2)
    balancer = Balancer(Double, names(2), model)
    balancer.backward({k: v * float("inf") for k, v in losses_of(model, batch()).items()})
    balancer.backward(losses_of(model, batch()))
    assert not torch.isfinite(model.encoder[0].weight.grad).any()


def test_weights_that_are_not_finite_spoil_every_row():
    class Broken(Double):
        def weights(self, gram, losses, present):
            return np.array([0.0, 0.0, np.nan, 1.0]), np.full(4, 0.5)

    model = toy(2)
    balancer = Balancer(Broken, names(2), model)
    for _ in range(2):
        balancer.backward(losses_of(model, batch()))
    assert not any(torch.isfinite(head.weight.grad).any() for head in model.heads)


def test_optimizer_that_steps_inside_a_window_is_stopped():
    model = toy(2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer = Balancer(Double, names(2), model)
    balancer.attach(optimizer)
    balancer.backward(losses_of(model, batch()))
    with pytest.raises(RuntimeError, match="stepped after 1 of 2 micro-batches"):
        optimizer.step()
    windowed = Balancer("mgda", names(2), model, accumulation="window", accumulation_steps=3)
    windowed.attach(optimizer)
    for _ in range(2):
        windowed.backward(losses_of(model, batch()))
    with pytest.raises(RuntimeError, match="stepped after 2 of 3 micro-batches"):
        optimizer.step()


def test_batches_go_with_a_fitting_number_of_micro_batches_and_no_held_weights():
    with pytest.raises(ValueError, match="should be a multiple of 2, found 3"):
        Balancer(Double, names(2), accumulation_steps=3)
    for argument in ({"every": 2}, {"smoothing": 0.5}):
        with pytest.raises(ValueError, match="Double needs its rows in every step"):
            Balancer(Double, names(2), **argument)
