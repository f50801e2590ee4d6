"""The law of ``.grad``: a backward gives those parameters a gradient that the plain sum would."""

import copy
import gc

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from mtlweights import Balancer, strategies

TASKS = ("a", "b", "c")
#: of every family: loss, gradient norm, Gramian, several batches, Jacobian with and without state
KINDS = ("uw", "gradnorm", "pcgrad", "imtl", "nash_mtl", "graddrop", "db_mtl", "modo")
ALL = [name for name in strategies.names() if not strategies.get(name).needs]


class Net(nn.Module):
    """A trunk of layers that may be left out, frozen or replaced, a tied layer, and a head for each task."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first = nn.Linear(3, 4)
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.side = nn.Linear(4, 4)  # of two tasks
        self.heads = nn.ModuleDict({task: nn.Linear(4, 1) for task in TASKS})

    def losses(self, x, y, tasks, layers, extra):
        h = torch.tanh(self.first(x))
        for k in layers:
            h = h + torch.tanh(self.layers[k](h))
        out = {}
        for i, task in enumerate(TASKS):
            if task in tasks:
                z = torch.tanh(self.side(h)) if task in ("b", "c") else h
                out[task] = (self.heads[task](z)[:, 0] * (1 + extra) - y[:, i]).square().mean()
        return out


def leaves_of(losses):
    """Ids of the leaves to which a backward of the plain sum gives a gradient."""
    seen, stack, found = set(), [loss.grad_fn for loss in losses if loss.requires_grad], set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(id(node.variable))
        stack += [following for following, _ in node.next_functions]
    return found


events = st.fixed_dictionaries(
    {
        "tasks": st.sets(st.sampled_from(TASKS), min_size=1),
        "layers": st.sets(st.integers(0, 2)),
        "frozen": st.sets(st.integers(0, 2)),
        "change": st.sampled_from(["nothing", "head", "layer", "assign", "model"]),
        "path": st.booleans(),
    }
)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(KINDS),
    mode=st.sampled_from(["auto", "rows", "gramian"]),
    heads=st.sampled_from(["paper", "plain"]),
    every=st.sampled_from([1, 3]),
    given_model=st.booleans(),
    steps=st.lists(events, min_size=2, max_size=5),
)
def test_the_leaves_of_the_plain_sum_get_a_gradient(name, mode, heads, every, given_model, steps):
    kind = strategies.get(name)
    gram = issubclass(kind, strategies.GramStrategy)
    options = {"gradients": mode if gram else "auto", "heads": heads}
    if gram and kind.batches == 1:
        options["every"] = every
    net = Net()
    balancer = Balancer(name, TASKS, net if given_model else None, **options)
    for number, step in enumerate(steps):
        net = change(net, step, number, given_model)
        frozen = [layer for k, layer in enumerate(net.layers) if k in step["frozen"]]
        for layer in net.layers:
            layer.requires_grad_(layer not in frozen)
        extra = nn.Parameter(torch.zeros(()))  # of a loss module, outside the model, new in every step
        torch.manual_seed(number)
        batches = kind.batches if gram else 1
        params = [*net.parameters(), extra]
        for p in params:
            p.grad = None
        wanted, plain = set(), {}
        for _ in range(batches):
            x, y = torch.randn(8, 3), torch.randn(8, 3)
            losses = net.losses(x, y, step["tasks"], sorted(step["layers"]), extra)
            wanted |= leaves_of(losses.values())
            for task, loss in losses.items():
                head = list(net.heads[task].parameters())
                found = torch.autograd.grad(loss, head, retain_graph=True)
                plain[task] = [g + p for g, p in zip(found, plain.get(task, [0, 0]), strict=True)]
            if step["path"]:
                balancer(losses).backward()
            else:
                balancer.backward(losses)
        assert {id(p) for p in params if p.grad is not None} == wanted
        if batches == 1 and (heads == "plain" or kind.heads == "plain") and name != "imtl":
            for task in step["tasks"]:
                for p, right in zip(net.heads[task].parameters(), plain[task], strict=True):
                    assert torch.allclose(p.grad, right, rtol=1e-4, atol=1e-7)
        with torch.no_grad():
            for p in params:
                p -= 0.01 * (0 if p.grad is None else p.grad)


def change(net, step, number, given_model):
    """What happens to models between two steps."""
    fresh = Net(number + 1)
    if step["change"] == "head":
        net.heads["a"] = fresh.heads["a"]
    elif step["change"] == "layer":
        net.layers[1] = fresh.layers[1]
    elif step["change"] == "assign":
        net.load_state_dict(copy.deepcopy(fresh.state_dict()), assign=True)
        net.requires_grad_()
    elif step["change"] == "model" and not given_model:
        return fresh
    return net


def tiny(seed=1):
    torch.manual_seed(seed)
    return nn.ModuleDict(
        {"t": nn.Sequential(nn.Linear(3, 4), nn.Tanh()), "a": nn.Linear(4, 1), "b": nn.Linear(4, 1)}
    )


def tiny_losses(model, x=None):
    torch.manual_seed(0)
    x, y = torch.randn(8, 3) if x is None else x, torch.randn(8, 2)
    h = model["t"](x)
    out = {t: ((model[t](h)[:, 0] - y[:, k]) ** 2).mean() for k, t in enumerate("ab")}
    return out, h


def grads(model):
    return [p.grad for p in model.parameters()]


def same(found, right):
    assert len(found) == len(right)
    for one, other in zip(found, right, strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def balanced(name, model=None):
    model = tiny() if model is None else model
    return model, Balancer(name, ["a", "b"], model)


@pytest.mark.parametrize("name", ALL)
def test_the_scalar_is_a_function_of_the_leaves(name):
    """``inputs=``, ``autograd.grad``, a term on the same forward pass, a second balancer on it."""
    batches = strategies.get(name).batches
    if batches > 1:
        return several_batches(name)
    model, balancer = balanced(name)
    balancer(tiny_losses(model)[0]).backward()
    right = grads(model)

    model, balancer = balanced(name)
    same(torch.autograd.grad(balancer(tiny_losses(model)[0]), list(model.parameters())), right)
    assert grads(model) == [None] * 6

    model, balancer = balanced(name)
    some = list(model["t"].parameters())
    balancer(tiny_losses(model)[0]).backward(inputs=some)
    same([p.grad for p in some], right[:2])
    assert model["a"].weight.grad is None

    model, balancer = balanced(name)
    losses, h = tiny_losses(model)
    (balancer(losses) + h.abs().mean()).backward()
    term = torch.autograd.grad(tiny_losses(model)[1].abs().mean(), list(model["t"].parameters()))
    same(grads(model), [*(g + t for g, t in zip(right, term, strict=False)), *right[2:]])

    model, balancer = balanced(name)
    second = Balancer(name, ["a", "b"], model)
    losses, _ = tiny_losses(model)
    (balancer(losses) + 2 * second(losses)).backward()
    same(grads(model), [3 * g for g in right])


def several_batches(name):
    """The gradient of the step comes with its last batch."""
    model, balancer = balanced(name)
    for _ in range(2):
        balancer(tiny_losses(model)[0]).backward()
        assert grads(model) == [None] * 6
    losses, _ = tiny_losses(model)
    found = torch.autograd.grad(balancer(losses), list(model.parameters()))
    assert all(g is not None for g in found)


@pytest.mark.parametrize("outer", ["uw", "gradnorm", "pcgrad", "graddrop"])
@pytest.mark.parametrize("inner", ["uw", "gradnorm", "pcgrad", "graddrop"])
def test_a_balancers_scalar_is_a_loss_like_any_other(inner, outer):
    """A hand-made twin: the inner direction as the gradient of a linear stand-in for the inner scalar."""
    model = tiny()
    within, around = Balancer(inner, ["a", "b"], model), Balancer(outer, ["ab", "c"], model)
    losses, h = tiny_losses(model)
    around({"ab": within(losses), "c": h.square().mean()}).backward()

    twin = tiny()
    within, around = Balancer(inner, ["a", "b"], twin), Balancer(outer, ["ab", "c"], twin)
    losses, _ = tiny_losses(twin)
    scalar = within(losses)
    params = list(twin.parameters())
    direction = torch.autograd.grad(scalar, params)
    linear = sum((d * p).sum() for d, p in zip(direction, params, strict=True))
    stand_in = linear - linear.detach() + scalar.detach()
    around({"ab": stand_in, "c": tiny_losses(twin)[1].square().mean()}).backward()
    same(grads(model), grads(twin))


@pytest.mark.parametrize("name", ["uw", "gradnorm", "pcgrad", "nash_mtl", "graddrop", "db_mtl"])
def test_a_hook_sees_the_final_gradient_once(name):
    model, balancer = balanced(name)
    weight, seen = model["t"][0].weight, []
    weight.register_hook(lambda g: seen.append(g.clone()) or g.clamp(-0.01, 0.01))
    balancer(tiny_losses(model)[0]).backward()
    free, other = balanced(name)
    other(tiny_losses(free)[0]).backward()
    assert len(seen) == 1 and torch.allclose(seen[0], free["t"][0].weight.grad, atol=1e-6)
    assert torch.equal(weight.grad, seen[0].clamp(-0.01, 0.01))


@pytest.mark.parametrize("name", ["gradnorm", "pcgrad", "nash_mtl", "mgda", "upgrad"])
@pytest.mark.parametrize("with_model", [True, False])
def test_inputs_of_the_network_are_no_parameters(name, with_model):
    """Points at which a network is differentiated do not change the weights, and get a gradient."""
    found = []
    for points in (True, False):
        model = tiny()
        balancer = Balancer(name, ["a", "b"], model if with_model else None)
        torch.manual_seed(3)
        x = torch.randn(8, 3).requires_grad_(points)
        balancer(tiny_losses(model, x)[0]).backward()
        found.append([*grads(model), *balancer.weights.values()])
        assert (x.grad is not None) == points
    same(*found)


def test_tensors_without_a_module_are_parameters():
    point = torch.tensor([1.0, 2.0], requires_grad=True)
    balancer = Balancer("pcgrad", ["a", "b"])
    balancer({"a": point.square().sum(), "b": (point - 3).square().sum()}).backward()
    a, b = torch.tensor([2.0, 4.0]), torch.tensor([-4.0, -2.0])  # their gradients conflict
    right = a - a @ b / (b @ b) * b + b - a @ b / (a @ a) * a
    assert torch.allclose(point.grad, right, atol=1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "nash_mtl", "gradnorm", "graddrop", "db_mtl", "adatask", "moco"])
def test_sparse_gradients_stay_sparse(name):
    torch.manual_seed(0)
    found = []
    for sparse in (True, False):
        torch.manual_seed(0)
        table = nn.Embedding(50, 4, sparse=sparse)
        heads = nn.ModuleDict({t: nn.Linear(4, 1) for t in "ab"})
        ids, y = torch.tensor([1, 3, 3, 7]), torch.randn(4, 2)
        balancer = Balancer(name, ["a", "b"], nn.ModuleList([table, heads]))
        for _ in range(2):
            table.weight.grad = None
            h = torch.tanh(table(ids))
            balancer(
                {t: (heads[t](h)[:, 0] - y[:, k]).square().mean() for k, t in enumerate("ab")}
            ).backward()
        assert table.weight.grad.is_sparse == sparse
        if sparse:
            torch.optim.SparseAdam([table.weight]).step()
        found.append(table.weight.grad.to_dense())
    assert torch.allclose(*found, atol=1e-6)


def test_a_task_whose_only_loss_is_constant_in_the_first_batch():
    for name in ("pcgrad", "nash_mtl", "graddrop", "gradnorm"):
        model, balancer = balanced(name)
        losses, _ = tiny_losses(model)
        balancer({"a": losses["a"], "b": torch.zeros(())}).backward()
        reached = [*model["t"].parameters(), *model["a"].parameters()]
        assert all(p.grad is not None for p in reached) and model["b"].weight.grad is None
        model.zero_grad()
        balancer(tiny_losses(model)[0]).backward()
        assert all(g is not None for g in grads(model))


def test_a_model_that_is_gone_is_forgotten():
    balancer = Balancer("moco", ["a", "b"])
    for seed in range(4):
        model = tiny(seed)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        balancer(tiny_losses(model)[0]).backward()
        optimizer.step()
    gc.collect()
    assert len(balancer._sharing.record.entries) <= 6 + 1  # and what the last step is watched by
    assert "torch.func" in refused(lambda: torch.func.grad(lambda w: balancer({"a": w.sum()}))(torch.ones(2)))


def refused(call):
    with pytest.raises(ValueError) as caught:
        call()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["nash_mtl", "mgda", "upgrad", "gradnorm", "graddrop"])
@pytest.mark.parametrize("masked", [False, True])
def test_compiled_code_tells_who_reaches_what(name, masked):
    """Heads that start at zero, adapters whose second matrix does: rows of zeros, from parameters reached.

    With ``masked`` the first batch has no label of the second task: its loss is 0, with a graph.
    """
    torch.compiler.reset()
    found = []
    for compiled in (True, False):
        model = tiny()
        nn.init.zeros_(model["a"].weight)
        model["down"], model["up"] = nn.Linear(3, 2, bias=False), nn.Linear(2, 4, bias=False)
        nn.init.zeros_(model["up"].weight)

        class Whole(nn.Module):
            def __init__(self, parts):
                super().__init__()
                self.parts = parts

            def forward(self, x):
                h = self.parts["t"](x) + self.parts["up"](self.parts["down"](x))
                return [self.parts[t](h)[:, 0] for t in "ab"]

        whole = Whole(model)
        run = torch.compile(whole, backend="aot_eager") if compiled else whole
        balancer = Balancer(name, ["a", "b"], whole)
        for step in range(3):
            torch.manual_seed(step)
            x, y = torch.randn(8, 3), torch.randn(8, 2)
            model.zero_grad()
            out = run(x)
            kept = 0.0 if masked and not step else 1.0
            losses = {"a": (out[0] - y[:, 0]).square().mean(), "b": kept * (out[1] - y[:, 1]).square().mean()}
            balancer(losses).backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.1 * p.grad
        found.append([p.detach() for p in model.parameters()])
    for one, other in zip(*found, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("name", ["moco", "db_mtl", "adatask"])
def test_what_is_kept_of_a_layer_waits_while_it_sits_out(name):
    """And of a layer of another size under the same name nothing is taken over."""
    net = Net()
    balancer = Balancer(name, TASKS, net)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    kept = []
    for number, layers in enumerate(([0, 1], [0], [0, 1])):
        torch.manual_seed(number)
        optimizer.zero_grad()
        balancer(net.losses(torch.randn(8, 3), torch.randn(8, 3), TASKS, layers, 0)).backward()
        optimizer.step()
        rows = next(iter(balancer.state_dict()["rows"].values()))
        kept.append(rows["layers.1.weight"].clone())
    assert kept[0].any() and torch.equal(kept[0], kept[1]) and not torch.equal(kept[1], kept[2])
    resumed = Balancer(name, TASKS, net)
    resumed.load_state_dict(balancer.state_dict())
    net.first, net.side = nn.Linear(3, 6), nn.Linear(6, 6)
    net.heads = nn.ModuleDict({task: nn.Linear(6, 1) for task in TASKS})
    resumed(net.losses(torch.randn(8, 3), torch.randn(8, 3), TASKS, [], 0)).backward()
    assert net.first.weight.grad.isfinite().all()


@pytest.fixture
def one_process():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.barrier()
    dist.destroy_process_group()


@pytest.mark.parametrize("name", ["gradnorm", "pcgrad", "graddrop"])
def test_what_is_written_under_ddp_is_what_a_leaf_would_get(name, one_process):
    """Added to the gradient that is there, hooks of both kinds called once with the final one."""
    found = []
    for wrapped in (True, False):
        model, calls = Net(), []
        model.first.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
        model.first.weight.register_post_accumulate_grad_hook(
            lambda p, calls=calls: calls.append(p.grad.clone())
        )
        outer = nn.parallel.DistributedDataParallel(model, find_unused_parameters=True) if wrapped else None
        balancer = Balancer(name, TASKS, outer or model)
        for seed in range(2):
            torch.manual_seed(seed)
            x, y = torch.randn(8, 3), torch.randn(8, 3)
            losses = model.losses(x, y, TASKS, [0], 0)
            balancer(losses).backward()
        assert len(calls) == 2 and torch.equal(calls[1], model.first.weight.grad)
        found.append([torch.zeros(()) if p.grad is None else p.grad for p in model.parameters()])
    same(*found)
