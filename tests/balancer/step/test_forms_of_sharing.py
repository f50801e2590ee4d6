"""The law of ``.grad`` where parameters serve one task, two or all: every strategy on every form."""

import copy

import pytest
import torch

from mtlweights import Balancer, strategies
from mtlweights.gradients.shared_parameters import Sharing as SharedParameters
from mtlweights.problems import Task
from mtlweights.problems.models import MLP, MultiTaskModel, Sharing
from mtlweights.strategies import JacobianStrategy

TASKS = [
    Task("kind", "classification", ("accuracy",), ("a", "b")),
    Task("size", "regression", ("rmse",), untrained=1.0, target=0.0),
    Task("form", "classification", ("accuracy",), ("x", "y", "z")),
]
NAMES = [task.name for task in TASKS]
FORMS = {
    "task_dependent": {"private": 2},
    "joint": {},
    "mmoe": {"experts": 2},
    "ple": {"experts": 1, "own_experts": 1, "levels": 1},
    "cross_stitch": {},
    "mtan": {},
}


def made(form, hidden=(4, 4)):
    torch.manual_seed(0)
    encoder = Sharing(form, FORMS[form]).around(MLP(3, hidden), TASKS)
    return MultiTaskModel(encoder, TASKS)


def batch(seed):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 3, generator=g)
    targets = {
        "kind": torch.randint(0, 2, (12,), generator=g),
        "form": torch.randint(0, 3, (12,), generator=g),
    }
    return {"x": x}, {**targets, "size": x.sum(1)}


def task_gradients(model, data):
    """Parameter -> a gradient per task, None where the task does not reach it."""
    losses = model(*data).losses
    params = dict(model.named_parameters())
    rows = [
        torch.autograd.grad(losses[name], [*params.values()], retain_graph=True, allow_unused=True)
        for name in NAMES
    ]
    return dict(zip(params, zip(*rows, strict=True), strict=True))


def stepped(name, model, explicit=False):
    """The balancer after one step's backwards; methods of several batches get as many."""
    balancer = Balancer(name, NAMES, model)
    for k in range(balancer.strategy.batches):
        losses = model(*batch(k)).losses
        if explicit:
            balancer.backward(losses)
        else:
            balancer(losses).backward()
    return balancer


SOME = ["equal", "uw", "gradnorm", "pcgrad", "mgda", "moco"]
WHOLE = ("ple",)  #: with every strategy: it has all there is; the others with a few of each kind
CASES = [(form, name) for form in FORMS for name in (strategies.names() if form in WHOLE else SOME)]


@pytest.mark.parametrize(("form", "name"), CASES)
def test_the_law(form, name):
    model = made(form)
    balancer = stepped(name, model)
    known = task_gradients(model, batch(0))
    weights, factors = balancer.weights, {}
    for key, param in model.named_parameters():
        rows = known[key]
        reached = [i for i, row in enumerate(rows) if row is not None]
        assert reached and param.grad is not None and param.grad.isfinite().all(), key
        if balancer.strategy.batches > 1:
            continue
        if (
            len(reached) == 1
        ):  # its task's gradient, plain or weighted, by one factor for all that is the task's
            (i,) = reached
            factors.setdefault(i, []).append(
                float((param.grad * rows[i]).sum() / rows[i].square().sum().clamp(min=1e-20))
            )
            if rows[i].norm() > 1e-6:
                torch.testing.assert_close(
                    param.grad, factors[i][-1] * rows[i], rtol=1e-4, atol=1e-7, msg=key
                )
            else:
                factors[i].pop()
        elif not isinstance(balancer.strategy, JacobianStrategy):
            total = sum(float(weights[NAMES[i]]) * rows[i] for i in reached)
            torch.testing.assert_close(param.grad, total, rtol=1e-4, atol=1e-6, msg=key)
    for i, own in factors.items():
        assert own == pytest.approx([own[0]] * len(own), rel=1e-3), NAMES[i]
        if balancer.strategy.heads == "plain":
            assert own[0] == pytest.approx(1, rel=1e-4), NAMES[i]


@pytest.mark.parametrize("name", SOME)
def test_both_paths_leave_the_same(name):
    model, other = made("ple"), made("ple")
    stepped(name, model)
    stepped(name, other, explicit=True)
    for (key, param), again in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(param.grad, again.grad, msg=key)


@pytest.mark.parametrize(
    ("form", "last"),
    [
        ("task_dependent", ["encoder.layers.0.0.0"]),
        ("mmoe", ["encoder.layers.1.0.0", "encoder.layers.1.1.0"]),
        ("ple", ["encoder.layers.1.3.0"]),  # behind each task's own
        ("cross_stitch", [f"encoder.layers.1.{i}.0" for i in range(3)]),
        ("mtan", ["encoder.layers.1.0.0"]),
        ("joint", ["encoder.of_examples"]),
    ],
)
def test_the_last_shared_layer_is_all_of_it(form, last):
    """Of experts, and of a network per task, no single one: its gradients would favour one task."""
    model = made(form)
    sharing = SharedParameters(NAMES, model)
    leaves = sharing.register([0, 1, 2], [model(*batch(0)).losses[name] for name in NAMES])
    sharing.measured(leaves, "last_shared", [0, 1, 2])
    expected = {f"{prefix}.{kind}" for prefix in last for kind in ("weight", "bias")}
    assert {name for name, _ in sharing.where} == expected


@pytest.mark.parametrize("form", ["mmoe", "ple", "task_dependent"])
def test_a_task_that_is_not_in_the_batch_leaves_what_is_its_own(form):
    model = made(form)
    inputs, targets = batch(0)
    Balancer("pcgrad", NAMES, model)(
        model(inputs, {"kind": targets["kind"], "size": targets["size"]}).losses
    ).backward()
    known = task_gradients(copy.deepcopy(model), batch(0))
    for key, param in model.named_parameters():
        alone = [i for i, row in enumerate(known[key]) if row is not None] == [2]
        assert (param.grad is None) == alone, key
    assert any(param.grad is None for param in model.encoder.parameters())


def test_states_of_each_tasks_own_are_no_representation():
    model = made("mmoe")
    balancer = Balancer("mgda", NAMES, model, gradients="features", features=model.encoder)
    with pytest.raises(ValueError, match="does not pass through the representation"):
        balancer(model(*batch(0)).losses).backward()
