"""What the engine keeps and stacks for strategies that need more: rows, batches, validation gradients."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.strategies import GramStrategy, JacobianStrategy
from tests.toys import assert_same_state, batch, losses_of, naive_gram, naive_rows, names, toy

pytestmark = pytest.mark.usefixtures("no_accelerator")


class Averaged(JacobianStrategy):
    """The sum of running means of the task gradients; counts the tensors whose gradient was not zero."""

    row_state = ("mean",)
    tensor_state = ("hits",)

    def direction(self, jacobian, losses, present):
        self.rows["mean"] = self.rows["mean"] + 0.5 * (jacobian - self.rows["mean"])
        pieces = jacobian.split(self.sizes, 1)
        self.rows["hits"] = self.rows["hits"] + torch.stack([p.any(1) for p in pieces], 1)
        return self.rows["mean"].sum(0)


def shared_of(model):
    return [p for n, p in model.named_parameters() if n.startswith("encoder")]


def flat_rows(model, data, only=None):
    rows = naive_rows(losses_of(model, data, only).values(), shared_of(model))
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


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


class Validated(GramStrategy):
    """Remembers its input; looks ``ahead`` along the plain sum."""

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
