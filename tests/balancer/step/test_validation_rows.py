"""Gradients of validation losses, where the strategy looks."""

import copy

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from mtlweights.strategies import GramStrategy
from tests.toys import assert_same_state, batch, losses_of, naive_gram, naive_rows, names, toy


class Validated(GramStrategy):
    """Remembers its input; looks ``ahead`` along the plain sum."""

    validation_rows = True
    measured_at = "all"

    def __init__(self, n_tasks, *, ahead=0.0):
        super().__init__(n_tasks)
        self.ahead = ahead

    def lookahead(self, present):
        m = len(present)
        return np.full(m, self.ahead) if self.ahead else None

    def weights(self, gram, losses, present):
        Validated.seen = gram.copy(), losses.copy()
        return np.ones(len(present))


@pytest.mark.parametrize("ahead", [0.0, 0.1])
@pytest.mark.parametrize("scale", [1.0, 1024.0])
def test_validation_gradients_join_the_gramian_where_the_strategy_looks(ahead, scale):
    model = toy(2)
    params = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in params]
    train_rows = naive_rows(losses_of(model, batch(seed=1)).values(), params)
    there = copy.deepcopy(model)
    moved = [p for p in there.parameters() if p.requires_grad]
    with torch.no_grad():
        for k, p in enumerate(moved):
            for row in train_rows:
                if row[k] is not None:
                    p -= (ahead * row[k]).float()
    held_out = losses_of(there, batch(seed=2), (1,))
    rows = train_rows + naive_rows(held_out.values(), moved)
    expected = naive_gram(rows, [c for c in range(len(params)) if any(r[c] is not None for r in train_rows)])
    balancer = Balancer(Validated, names(2), model, ahead=ahead)
    balancer.validate(lambda: losses_of(model, batch(seed=2), (1,)))
    losses = losses_of(model, batch(seed=1))
    balancer.backward(losses, gradient=torch.tensor(scale))
    gram, values = Validated.seen
    assert gram == pytest.approx(expected, rel=1e-4, abs=1e-7)
    assert values == pytest.approx([*(v.item() for v in losses.values()), held_out["t1"].item()], rel=1e-5)
    assert all(torch.equal(a, b) for a, b in zip(params, before, strict=True))
    optimizer = torch.optim.SGD(params, lr=0.0)
    optimizer.step()
    balancer.backward(losses_of(model, batch(seed=1)))  # used once
    assert Validated.seen[0].shape == (2, 2)


def test_parameters_come_back_when_the_closure_fails():
    model = toy(2)
    before = copy.deepcopy(model.state_dict())
    balancer = Balancer(Validated, names(2), model, ahead=0.1)
    balancer.validate(lambda: {"t9": torch.zeros(())})
    with pytest.raises(ValueError, match="'t9' is not one of the balancer's tasks"):
        balancer.backward(losses_of(model, batch()))
    assert_same_state(dict(model.state_dict()), dict(before))


def test_look_ahead_leaves_a_retained_graph_usable():
    model = toy(2)
    balancer = Balancer(Validated, names(2), model, ahead=0.1)
    balancer.validate(lambda: losses_of(model, batch(seed=2)))
    loss = balancer(losses_of(model, batch(seed=1)))
    loss.backward(retain_graph=True)
    first = model.encoder[0].weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(model.encoder[0].weight.grad, 2 * first)
