"""Advice: what is measured in a loop is right and touches nothing, and the rule is the one that is stated."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.balancer.advice import Advice, advise
from tests.toys import batch, losses_of, names, toy


class Point(nn.Module):
    """Two parameters, whose gradients are given."""

    def __init__(self):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(2))

    def losses(self, **gradients):
        return {task: self.at @ torch.tensor(g) + 1.0 for task, g in gradients.items()}


def seen(*steps):
    model = Point()
    balancer = Balancer("equal", list(steps[0]), model)
    for gradients in steps:
        balancer.advise(model.losses(**gradients))
    return balancer.advise()


def test_norms_cosines_and_noise_of_known_gradients():
    found = seen({"a": [3.0, 0.0], "b": [0.0, 0.5]}, {"a": [3.0, 0.0], "b": [-0.3, 0.4]})
    assert found.norms == pytest.approx({"a": 3.0, "b": 0.5}) and found.losses == {"a": 1.0, "b": 1.0}
    assert found.cosines == pytest.approx({("a", "b"): -0.3}) and found.opposed == {("a", "b"): 0.5}
    # of a there is no noise; of b the product of the two is 0.2, the mean square 0.25
    assert found.noise == pytest.approx({"a": 0.0, "b": 0.25})
    assert seen({"a": [1.0, 0.0]}, {"a": [-1.0, 0.0]}).noise == {"a": float("inf")}


def test_a_task_that_is_absent_is_left_out_of_its_step():
    found = seen({"a": [1.0, 0.0], "b": [1.0, 1.0]}, {"a": [1.0, 0.0]}, {"a": [1.0, 0.0], "b": [1.0, 1.0]})
    assert found.steps == 3 and found.noise == pytest.approx({"a": 0.0, "b": 0.0})


def trained(looks):
    torch.manual_seed(0)
    model = toy(3)
    balancer = Balancer("gradvac", names(3), model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(11):
        losses = losses_of(model, batch(seed=step))
        if looks:
            before = {name: p.grad for name, p in model.named_parameters()}
            balancer.advise(losses)
            assert all(p.grad is before[name] for name, p in model.named_parameters())
        optimizer.zero_grad(set_to_none=step % 2 == 0)
        balancer(losses).backward()
        optimizer.step()
    return model, balancer


def test_looking_changes_nothing_of_the_training():
    (model, balancer), (plain, unseen) = trained(True), trained(False)
    for one, other in zip(model.state_dict().values(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other)
    states = [b.state_dict() for b in (balancer, unseen)]
    assert str(states[0]) == str(states[1])
    found = balancer.advise()
    assert (
        found.costs.keys() == {"losses", "last layer", "Gramian", "Jacobian"} and found.costs["losses"] == 1
    )
    assert copy.deepcopy(balancer)._looks is None


@pytest.mark.parametrize(
    ("make", "pieces"),
    [
        (lambda: Balancer("uw", ["a"]).advise(), "model=model"),
        (lambda: Balancer("uw", ["a"], Point()).advise(), "has seen no step"),
        (lambda: Balancer("uw", ["a"], Point()).advise({"b": torch.zeros((), requires_grad=True)}), "'b'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(make, pieces):
    with pytest.raises(ValueError, match=pieces):
        make()


def test_a_parameter_that_is_stepped_in_the_backward_is_refused():
    model = Point()
    model.at.register_post_accumulate_grad_hook(lambda param: None)
    with pytest.raises(ValueError, match="take the hooks off"):
        Balancer("uw", ["a"], model).advise(model.losses(a=[1.0, 0.0]))


PLAIN = Advice(
    30, {"a": 1.0, "b": 1.0}, {"a": 1.0, "b": 1.0}, {("a", "b"): 0.0}, {("a", "b"): 0.4}, {"a": 1.0, "b": 1.0}
)


@pytest.mark.parametrize(
    ("given", "finding", "three"),
    [
        ({}, "none", ["equal", "uw", "cagrad"]),
        ({"norms": {"a": 1.0, "b": 2.9}}, "none", ["equal", "uw", "cagrad"]),
        ({"norms": {"a": 1.0, "b": 3.0}}, "scales", ["scale_invariant", "igb", "pcgrad"]),
        ({"norms": {"a": 1.0, "b": 0.0}}, "none", ["equal", "uw", "cagrad"]),
        ({"cosines": {("a", "b"): -0.11}}, "conflict", ["pcgrad", "cagrad", "uw"]),
        ({"cosines": {("a", "b"): -0.11}, "costs": {"Gramian": 2.1}}, "conflict", ["pcgrad", "cagrad", "uw"]),
        (
            {"norms": {"a": 1.0, "b": 9.0}, "costs": {"Gramian": 9.0}},
            "scales",
            ["scale_invariant", "igb", "pcgrad"],
        ),
        (
            {"norms": {"a": 1.0, "b": 9.0}, "losses": {"a": -1.0, "b": 1.0}},
            "scales",
            ["gradnorm", "imtl_g", "pcgrad"],
        ),
    ],
)
def test_the_rule(given, finding, three):
    found = replace(PLAIN, **given)
    assert found.finding == finding and list(found.strategies) == three
    assert all(name in str(found) for name in three)
    assert ("every=8" in str(found)) is bool(given.get("costs"))


def test_the_report_says_what_is_uncertain():
    assert "fewer than 20" not in str(PLAIN) and "mostly noise" not in str(PLAIN)
    assert "fewer than 20" in str(replace(PLAIN, steps=19))
    assert "Of b a batch's gradient is mostly noise" in str(replace(PLAIN, noise={"a": 10.0, "b": 11.0}))
    assert advise(["a"], [{"losses": [1.0], "gram": [[4.0]], "ahead": {}, "present": [0]}], {}).apart == 1.0
