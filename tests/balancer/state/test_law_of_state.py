"""One optimizer step that was taken is one committed step, whoever attached what to whom; nothing else is."""

import copy
import gc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as draw

from mtlweights import Balancer, strategies
from mtlweights.balancer.state.optimizer_state import KEY
from tests.toys import assert_same_state, backward, batch, losses_of, names, toy

pytestmark = [pytest.mark.filterwarnings("ignore:(AdaTask|MConFIG) scales its own updates")]
ACTIONS = ["backward", "step", "zero", "attach", "other", "reload"]


class SAM(torch.optim.Optimizer):
    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})
        self.base_optimizer = torch.optim.SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def first_step(self):
        for p in (p for group in self.param_groups for p in group["params"] if p.grad is not None):
            self.state[p]["at"] = p.clone()
            p.add_(p.grad, alpha=0.01)
        self.zero_grad()

    @torch.no_grad()
    def second_step(self):
        for p, kept in self.state.items():
            p.copy_(kept["at"])
        self.base_optimizer.step()
        self.zero_grad()


def made(name="uw", n_tasks=2):
    model = toy(n_tasks)
    return Balancer(name, names(n_tasks), model), model


def one(balancer, model, optimizer):
    optimizer.zero_grad()
    backward(balancer, lambda: losses_of(model, batch()))
    optimizer.step()


@settings(max_examples=60, deadline=None)
@given(
    name=draw.sampled_from(strategies.names()), actions=draw.lists(draw.sampled_from(ACTIONS), max_size=10)
)
def test_any_order_of_events_counts_the_steps_taken(name, actions):
    balancer, model = made(name)
    optimizers = [torch.optim.SGD(model.parameters(), lr=0.01) for _ in range(2)]
    one(balancer, model, optimizers[0])
    taken, pending = 1, False
    for action in actions:
        if action == "backward":
            backward(balancer, lambda: losses_of(model, batch()))
            pending = True
        elif action in ("step", "other"):
            optimizers[action == "other"].step()
            taken, pending = taken + pending, False
        elif action == "zero":
            optimizers[0].zero_grad()
            pending = False
        elif action == "attach":
            balancer.attach(optimizers[0])
        else:
            optimizers[0].load_state_dict(optimizers[0].state_dict())
            if KEY in optimizers[0].state_dict():
                pending = False  # a loaded balancer has no step in flight
        balancer.state_dict()
        assert int(balancer.strategy.step) == taken


@pytest.mark.parametrize("how", ["sam", "base", "unattached"])
@pytest.mark.parametrize("name", ["uw", "pcgrad", "graddrop"])
def test_sam_commits_once_per_step(name, how):
    balancer, model = made(name)
    sam = SAM(model.parameters(), lr=0.01)
    if how != "unattached":
        balancer.attach(sam if how == "sam" else sam.base_optimizer)
    for _ in range(3):
        backward(balancer, lambda: losses_of(model, batch()))
        sam.first_step()
        backward(balancer, lambda: losses_of(model, batch()))
        sam.second_step()
    assert int(balancer.strategy.step) == 3


@pytest.mark.parametrize("given_model", [True, False])
@pytest.mark.parametrize("name", ["uw", "pcgrad"])
def test_optimizers_in_turn_and_together(name, given_model):
    balancer, model = made(name)
    balancer = balancer if given_model else Balancer(name, names(2))
    parts = [torch.optim.SGD(part.parameters(), lr=0.01) for part in (model.encoder, model.heads)]
    for k in range(4):
        one(balancer, model, parts[k % 2])
    assert int(balancer.strategy.step) == 4
    model.zero_grad()
    backward(balancer, lambda: losses_of(model, batch()))
    for optimizer in parts:
        optimizer.step()
    assert int(balancer.strategy.step) == 5


def test_a_new_optimizer_commits_as_the_attached_one_did():
    balancer, model = made()
    balancer.attach(torch.optim.SGD(model.parameters(), lr=0.01))
    for _ in range(3):
        one(balancer, model, torch.optim.Adam(model.parameters()))
    assert int(balancer.strategy.step) == 3


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_of_two_fused_optimizers_one_that_stepped_is_enough(first):
    balancer, model = made()
    parts = [torch.optim.Adam(part.parameters(), fused=True) for part in (model.encoder, model.heads)]
    balancer(losses_of(model, batch())).backward()
    for optimizer, flag in zip(parts, (first, 1 - first), strict=True):
        optimizer.grad_scale, optimizer.found_inf = torch.ones(()), torch.tensor(flag)
        optimizer.step()
    assert int(balancer.strategy.step) == 1
    balancer(losses_of(model, batch())).backward()
    assert int(balancer.strategy.step) == 1


def test_a_step_skipped_first_of_all_is_no_step():
    balancer, model = made()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer(losses_of(model, batch())).backward()
    optimizer.zero_grad()
    one(balancer, model, optimizer)
    assert int(balancer.strategy.step) == 1


def test_several_balancers_ride_in_one_optimizer_and_a_dropped_one_does_not():
    (first, model), (second, _) = made("uw"), made("famo")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for balancer in (first, second, first):
        balancer.attach(optimizer)
    assert len(optimizer._optimizer_state_dict_post_hooks) == 1
    one(first, model, optimizer)
    saved = copy.deepcopy(optimizer.state_dict())
    assert_same_state(saved[KEY], first.state_dict())
    assert_same_state(saved[f"{KEY} 2"], second.state_dict())
    one(first, model, optimizer)
    optimizer.load_state_dict(saved)
    assert int(first.strategy.step) == 1
    del first, balancer
    gc.collect()
    assert_same_state(optimizer.state_dict()[KEY], second.state_dict())
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.load_state_dict(saved)  # the one that is left finds its own
    del second
    gc.collect()
    assert KEY not in optimizer.state_dict() and not optimizer._optimizer_state_dict_post_hooks


@pytest.mark.parametrize("name", ["uw", "gradnorm", "db_mtl"])
def test_a_state_loaded_before_attach_is_taken_up(name):
    balancer, model = made(name)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    one(balancer.attach(optimizer), model, optimizer)
    fresh = torch.optim.SGD(model.parameters(), lr=0.01)
    fresh.load_state_dict(optimizer.state_dict())
    assert_same_state(made(name)[0].attach(fresh).state_dict(), balancer.state_dict())
    with pytest.raises(ValueError, match="does not fit"):
        other = torch.optim.SGD(model.parameters(), lr=0.01)
        other.load_state_dict(optimizer.state_dict())
        made("auto_lambda")[0].attach(other)


def test_a_line_search_is_warned_of_a_negative_weight():
    point = torch.nn.Parameter(torch.zeros(3))
    gradients = torch.tensor([[1.0, 0, 0], [0.6, 0.8, 0], [0.8, 0.6, 0.1]])  # the third between the others
    balancer = Balancer("config", names(3))
    optimizer = torch.optim.LBFGS([point], max_iter=1, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        value = balancer(dict(zip(names(3), (gradients @ point).unbind(), strict=True)))
        value.backward()
        return value

    with pytest.warns(UserWarning, match="ConFIG gave a task a negative weight"):
        optimizer.step(closure)


def searched(name, steps=3, **options):
    model = toy()
    balancer = Balancer(name, names(2), model, **options)
    optimizer = torch.optim.LBFGS(model.parameters(), line_search_fn="strong_wolfe", max_iter=6)
    seen = []

    def closure():
        optimizer.zero_grad()
        losses = losses_of(model, batch())
        value = balancer(losses)
        value.backward()
        weights = balancer.weights
        seen.append((value.item(), sum(float(weights[t]) * loss.item() for t, loss in losses.items())))
        return value

    for _ in range(steps):
        optimizer.step(closure)
    return balancer, sum(loss.item() for loss in model(batch())), seen


@pytest.mark.parametrize("name", ["config", "nash_mtl", "gradnorm", "auto_lambda", "cov"])
def test_a_line_search_sees_one_objective_per_step(name):
    start = sum(loss.item() for loss in toy()(batch()))
    balancer, end, seen = searched(name)
    assert int(balancer.strategy.step) == 3 and len(seen) > 6 and end < 0.9 * start
    for value, weighted in seen:
        assert value == pytest.approx(weighted, rel=1e-5)


def test_an_objective_of_its_own_stays_one_and_others_are_refused():
    balancer, _, seen = searched("uw")
    assert int(balancer.strategy.step) == 3
    assert seen[0][0] == pytest.approx(seen[0][1], rel=1e-5)
    for name in ("graddrop", "modo"):
        with pytest.raises(ValueError, match="LBFGS follows one objective within a step"):
            searched(name)
    with pytest.raises(ValueError, match="there is none with heads='plain'"):
        searched("pcgrad", heads="plain")
