"""``balancer.finish``: a task that is done leaves, its head is frozen, the others go on."""

import copy

import pytest
import torch

from mtlweights import Balancer
from tests.toys import assert_same, assert_same_state, batch, gradients_of, losses_of, names, toy


def step(model, balancer, optimizer, seed, only=None):
    optimizer.zero_grad(set_to_none=False)
    balancer(losses_of(model, batch(seed=seed), only)).backward()
    found = gradients_of(model)
    optimizer.step()
    return found


def adam(model):
    return torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)


@pytest.mark.parametrize("name", ["uw", "famo", "pcgrad", "nash_mtl", "gradvac", "db_mtl", "moco"])
def test_it_is_as_if_the_task_were_missing_from_every_batch(name):
    model = toy(3)
    balancer, optimizer = Balancer(name, names(3), model), adam(model)
    for seed in range(2):
        step(model, balancer, optimizer, seed)
    twin = copy.deepcopy(model)
    other, adam2 = Balancer(name, names(3), twin), adam(twin)
    other.load_state_dict(balancer.state_dict())
    adam2.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    balancer.finish("t1")
    head = copy.deepcopy(model.heads[1].state_dict())
    for seed in range(2, 5):
        mine, theirs = step(model, balancer, optimizer, seed), step(twin, other, adam2, seed, (0, 2))
        assert "t1" not in balancer.weights and balancer.metrics().keys() == other.metrics().keys()
        assert mine["heads.1.weight"] is None
        assert_same(
            {k: g for k, g in mine.items() if "heads.1" not in k},
            {k: g for k, g in theirs.items() if "heads.1" not in k},
        )
    for key, value in model.heads[1].state_dict().items():  # neither momentum nor decay
        assert torch.equal(value, head[key])
    assert not any(p.requires_grad for p in model.heads[1].parameters())
    assert all(p.requires_grad for p in (*model.encoder.parameters(), *model.heads[0].parameters()))
    assert balancer.finished == ("t1",) and "Finished: t1." in balancer.explain()
    ours = balancer.state_dict()
    assert ours.pop("finished") == ["t1"] and other.state_dict().pop("finished") == []
    torch.testing.assert_close(ours["sums"], other.state_dict()["sums"])
    assert_same_state(ours["strategy"], other.state_dict()["strategy"])


def test_what_two_finished_tasks_share_goes_when_the_second_does_and_loading_freezes_and_thaws():
    model = toy(3)
    joint = torch.nn.Parameter(torch.ones(()))
    model.register_parameter("joint", joint)
    balancer, data = Balancer("pcgrad", names(3), model), batch()

    def losses():
        found = losses_of(model, data)
        return {"t0": found["t0"] * joint, "t1": found["t1"] * joint, "t2": found["t2"]}

    balancer(losses()).backward()
    fresh = balancer.state_dict()
    balancer.finish("t0")
    assert joint.requires_grad and not model.heads[0].weight.requires_grad
    balancer.finish("t1")
    assert not joint.requires_grad and model.encoder[0].weight.requires_grad
    balancer(losses()).backward()  # t2 goes on
    saved = balancer.state_dict()
    del fresh["finished"]  # as before there were any
    balancer.load_state_dict(fresh)
    assert balancer.finished == () and joint.requires_grad and model.heads[0].weight.requires_grad
    copied = copy.deepcopy(model)
    again = Balancer("pcgrad", names(3), copied)  # has met nothing yet
    again.load_state_dict(saved)
    assert again.finished == ("t0", "t1") and not copied.joint.requires_grad
    assert copied.encoder[0].weight.requires_grad and not copied.heads[1].bias.requires_grad


def test_a_trunk_is_not_taken_for_a_head_before_all_tasks_were_met():
    model = toy(2)
    balancer = Balancer("equal", names(2), model)
    balancer(losses_of(model, batch(), (0,))).backward()
    balancer.finish("t0")
    assert all(
        p.requires_grad
        for p in model.parameters()
        if p is not model.frozen.weight and p is not model.frozen.bias
    )
    for _ in range(2):
        balancer(losses_of(model, batch())).backward()
    assert not model.heads[0].weight.requires_grad and model.encoder[0].weight.requires_grad


def test_steps_are_seen_without_hooks_when_the_watched_parameter_is_frozen():
    model = toy(2)
    balancer = Balancer("uw", names(2), model)
    for k in range(4):
        model.zero_grad()
        balancer(losses_of(model, batch(seed=k))).backward()
        with torch.no_grad():
            for param in model.parameters():
                if param.grad is not None:
                    param -= 0.01 * param.grad
        if k == 1:
            balancer.finish("t0")
    balancer.state_dict()
    assert int(balancer.strategy.step) == 4


@pytest.mark.parametrize("wrong", [{"finished": ["t0", "t1"]}, {"finished": ["x"]}, {"finished": "t0"}])
def test_what_is_refused(wrong):
    model = toy(2)
    balancer = Balancer("pcgrad", names(2), model)
    with pytest.raises(ValueError, match=r"'t2' is not one of the balancer's tasks.*t0, t1"):
        balancer.finish("t2")
    with pytest.raises(ValueError, match="finished should be some of the tasks"):
        balancer.load_state_dict(balancer.state_dict() | wrong)
    balancer.finish("t0")
    with pytest.raises(ValueError, match="'t1' is the last task that is left: end the training"):
        balancer.finish("t1")
    losses = losses_of(model, batch(), (0,))
    with pytest.raises(ValueError, match=r"of finished tasks \(t0\): leave this batch out"):
        balancer(losses)
    model.eval()
    assert torch.equal(balancer(losses), losses["t0"])  # a validation loss, as ever
