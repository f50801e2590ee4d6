"""MoDo and SDMGrad: what strategies of three batches have in common."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer
from tests.strategies.gram.helpers import flat, of_third, stacks
from tests.strategies.helpers import B, make
from tests.toys import batch, losses_of, naive_rows, names, toy

three = pytest.mark.parametrize("name", ["modo", "sdmgrad"])


@three
def test_absent_tasks_keep_their_share(name):
    strategy, pair = make(name, 3), make(name, 2)
    of_third(strategy, np.diag([1.0, 2, 3]))
    before = strategy.share.numpy().copy()
    pair.share.copy_(torch.from_numpy(before[[2, 0]] / before[[2, 0]].sum()))
    weights = of_third(strategy, B, present=np.array([2, 0]))
    assert weights == pytest.approx(of_third(pair, B), rel=1e-12) and weights.sum() == pytest.approx(1)
    after = strategy.share.numpy()
    assert after[1] == before[1]
    assert after[[2, 0]] == pytest.approx(before[[2, 0]].sum() * pair.share.numpy(), rel=1e-12)
    assert not np.allclose(after, before)


@three
def test_tasks_without_any_share_start_from_equal_ones(name):
    strategy, fresh = make(name, 3), make(name, 2)
    strategy.share.copy_(torch.tensor([0.0, 1, 0]))
    assert of_third(strategy, B, present=np.array([0, 2])) == pytest.approx(of_third(fresh, B), rel=1e-15)
    assert strategy.share.tolist() == [0, 1, 0]


@three
def test_the_third_batch_is_weighed_not_asked(name):
    rng = np.random.default_rng(0)
    one, two, three = rng.normal(size=(3, 3, 5))
    assert (of_third(make(name, 3), one, two, three) == of_third(make(name, 3), one, two, 9 * three)).all()
    assert (of_third(make(name, 3), one, two, three) != of_third(make(name, 3), one, three, two)).any()


@three
@pytest.mark.parametrize("n_tasks", [1, 2, 3, 10, 40])
def test_weights_stay_on_the_simplex(name, n_tasks):
    strategy = make(name, n_tasks)
    for jacobians in list(stacks(n_tasks)) * 3:
        with np.errstate(all="raise"):
            weights = of_third(strategy, *jacobians)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1, rel=1e-12)
        assert strategy.share.sum().item() == pytest.approx(1, rel=1e-12) and (strategy.share >= 0).all()


@three
def test_a_step_of_three_batches_in_a_training_loop(name):
    """Against the gradients of each batch, one at a time, and the strategy on their Gramian."""
    model, twin = toy(3), make(name, 3)
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    encoder = list(model.encoder.parameters())
    heads = [list(head.parameters()) for head in model.heads]
    for step in range(4):
        data = [batch(seed=3 * step + k) for k in range(3)]
        rows = [naive_rows(losses_of(model, d).values(), encoder) for d in data]
        jacobians = [np.array([flat(row) for row in of_batch]) for of_batch in rows]
        weights = of_third(twin, *jacobians)
        optimizer.zero_grad()
        wanted = [
            sum(torch.autograd.grad(losses_of(model, d)[f"t{i}"], heads[i])[0] for d in data) / 3
            for i in range(3)
        ]
        for d in data:
            balancer.backward(losses_of(model, d), gradient=torch.tensor(1 / 3))  # as under any accumulation
        found = flat([p.grad for p in encoder])
        assert found == pytest.approx(weights @ jacobians[2], rel=1e-4, abs=1e-6)
        for i in range(3):
            torch.testing.assert_close(heads[i][0].grad, wanted[i])
        assert [balancer.weights[n].item() for n in names(3)] == pytest.approx(weights, rel=1e-5)
        optimizer.step()
