"""Rows that the engine keeps for a strategy: per task, committed, saved, let go."""

import copy

import pytest
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.strategies import JacobianStrategy
from tests.toys import (
    assert_same_state,
    batch,
    flat_rows,
    losses_of,
    names,
    shared_of,
    toy,
)


class Averaged(JacobianStrategy):
    """The sum of running means of the task gradients; counts the tensors whose gradient was not zero."""

    row_state = ("mean",)
    tensor_state = ("hits",)

    def direction(self, jacobian, losses, present):
        self.rows["mean"] = self.rows["mean"] + 0.5 * (jacobian - self.rows["mean"])
        pieces = jacobian.split(self.sizes, 1)
        self.rows["hits"] = self.rows["hits"] + torch.stack([p.any(1) for p in pieces], 1)
        return self.rows["mean"].sum(0)


def train(model, balancer, optimizer, seeds, holes=(None,)):
    for seed in seeds:
        optimizer.zero_grad()
        balancer.backward(losses_of(model, batch(seed=seed), holes[seed % len(holes)]))
        optimizer.step()


def test_rows_are_kept_per_task_and_only_where_present():
    model = toy(3)
    balancer = Balancer(Averaged, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    mean = torch.zeros(3, sum(p.numel() for p in shared_of(model)), dtype=torch.float64)
    for seed, only in enumerate([(0, 1, 2), (0, 2), (1, 2), (0, 1, 2)]):
        optimizer.zero_grad()
        at = list(only)
        mean[at] += 0.5 * (flat_rows(model, batch(seed=seed), only) - mean[at])
        balancer.backward(losses_of(model, batch(seed=seed), only))
        found = torch.cat([p.grad.flatten() for p in shared_of(model)]).double()
        torch.testing.assert_close(found, mean[at].sum(0), rtol=1e-5, atol=1e-6)
        optimizer.step()
    state = balancer.state_dict()["rows"]
    assert state["hits"]["encoder.0.weight"].flatten().tolist() == [3, 3, 4]
    assert set(state["mean"]) == {n for n, _ in model.named_parameters() if n.startswith("encoder")}


def test_rows_of_a_skipped_step_are_not_kept():
    model = toy(2)
    balancer = Balancer(Averaged, names(2), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer.attach(optimizer)
    train(model, balancer, optimizer, [0])
    before = copy.deepcopy(balancer.state_dict())
    optimizer.zero_grad()
    balancer.backward(losses_of(model, batch(seed=1)))
    optimizer.zero_grad()  # what a scaler's skip and the next zero_grad leave
    assert_same_state(balancer.state_dict(), before)
    train(model, balancer, optimizer, [1])
    assert not torch.equal(
        balancer.state_dict()["rows"]["mean"]["encoder.0.weight"], before["rows"]["mean"]["encoder.0.weight"]
    )


def test_rows_of_a_step_that_the_device_skipped_are_not_kept():
    """A fused optimizer calls its hook even then, and only a flag on the device tells."""
    model = toy(2)
    balancer = Balancer(Averaged, names(2), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, fused=True)
    balancer.attach(optimizer)
    for only in ((0, 1), (0,)):
        train(model, balancer, optimizer, [0])
        before = copy.deepcopy(balancer.state_dict())
        balancer.backward(losses_of(model, batch(seed=1), only))
        optimizer.found_inf = torch.ones(())
        optimizer.step()
        del optimizer.found_inf
        assert_same_state(balancer.state_dict(), before)


def test_rows_grow_with_the_shared_set_and_keep_what_they_had():
    trunk, extra = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
    model = nn.ModuleDict({"trunk": trunk, "extra": extra})
    balancer = Balancer(Averaged, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    x = torch.ones(2)
    one, two = trunk(x).sum(), trunk(x).square().sum()
    balancer.backward({"t0": one, "t1": two})
    optimizer.step()
    early = balancer.state_dict()["rows"]["mean"]
    assert list(early) == ["trunk.weight"]
    balancer.backward({"t0": extra(x).sum() + trunk(x).sum(), "t2": extra(x).square().sum()})
    optimizer.step()
    late = balancer.state_dict()["rows"]["mean"]
    assert torch.equal(late["trunk.weight"][1], early["trunk.weight"][1])
    assert late["extra.weight"][0].abs().sum() > 0 and not late["extra.weight"][1].any()


@pytest.mark.parametrize("given", [True, False], ids=["model", "no model"])
def test_resume_is_bit_identical(given):
    def start():
        model = toy(3)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, Balancer(Averaged, names(3), model if given else None), optimizer

    holes = ((0, 1, 2), (0, 2), (1, 2))
    straight, half, resumed = start(), start(), start()
    train(*straight, range(8), holes)
    train(*half, range(4), holes)
    resumed[0].load_state_dict(half[0].state_dict())
    resumed[1].load_state_dict(half[1].state_dict())
    train(*resumed, range(4, 8), holes)
    assert_same_state(dict(resumed[0].state_dict()), dict(straight[0].state_dict()))
    assert_same_state(resumed[1].state_dict()["rows"], straight[1].state_dict()["rows"])


def test_rows_of_another_strategy_or_shape_are_refused():
    class Other(Averaged):
        row_state = ("other",)

    class Wrong(Averaged):
        def direction(self, jacobian, losses, present):
            self.rows["mean"] = jacobian[:, :3]
            return jacobian.sum(0)

    model = toy(2)
    balancer = Balancer(Averaged, names(2), model)
    balancer.backward(losses_of(model, batch()))
    torch.optim.SGD(model.parameters(), lr=0.1).step()
    with pytest.raises(ValueError, match="does not fit Other"):
        Balancer(Other, names(2), model).load_state_dict(balancer.state_dict())
    with pytest.raises(ValueError, match=r"rows\['mean'\] with \d+ columns, found \(3,\)"):
        Balancer(Wrong, names(2), model).backward(losses_of(model, batch()))


def test_own_update_rule_inside_adam_warns():
    class Own(Averaged):
        replaces_optimizer = True

    model = toy(2)
    balancer = Balancer(Own, names(2), model)
    balancer.attach(torch.optim.SGD(model.parameters(), lr=0.1))
    for optimizer in (
        torch.optim.Adam(model.parameters()),
        torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9),
    ):
        with pytest.warns(UserWarning, match="Own scales its own updates: train with torch.optim.SGD"):
            balancer.attach(optimizer)


def test_rows_of_parameters_that_are_no_more_are_let_go():
    balancer = Balancer(Averaged, names(2))
    for seed in range(6):
        model = toy(2)
        train(model, balancer, torch.optim.SGD(model.parameters(), lr=0.1), [seed, seed + 1])
    assert all(len(rows) <= 2 * len(shared_of(model)) for rows in balancer.state_dict()["rows"].values())
