"""Every way to a Gramian gives the one of the plain computation, whatever the model is made of."""

import copy
import re
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer
from mtlweights.gradients import factored, graph
from mtlweights.gradients.inner_products import inner
from mtlweights.strategies import GramStrategy
from tests.toys import assert_same, batch, gradients_of, naive_gram, naive_rows, names, toy
from tests.toys import losses_of as toy_losses

T = 3


class Probe(GramStrategy):
    """Weights that move smoothly with every entry of the Gramian."""

    def weights(self, gram, losses, present):
        self.seen = gram.copy()
        self.precision = torch.get_float32_matmul_precision(), torch.is_autocast_enabled("cpu")
        return 1 + gram.sum(1) / (1e-30 + np.trace(gram))


class Model(nn.Module):
    """A trunk, and T linear heads on its output; ``encode`` is what the kinds below fill in."""

    def __init__(self, width=6):
        super().__init__()
        self.build()
        self.heads = nn.ModuleList([nn.Linear(width, 2) for _ in range(T)])

    def forward(self, x):
        h = self.encode(x)
        return [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(self.heads)]


class Plain(Model):
    def build(self):
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 6, bias=False), nn.Tanh())

    def encode(self, x):
        return self.trunk(x["x"])


class Partly(Plain):
    """A layer that two of the three tasks use."""

    def build(self):
        super().build()
        self.extra = nn.Linear(6, 6)

    def forward(self, x):
        h = self.encode(x)
        inputs = [self.extra(h), self.extra(h), h]
        pairs = zip(self.heads, inputs, strict=True)
        return [F.cross_entropy(head(z), x["y"][:, i]) for i, (head, z) in enumerate(pairs)]


class Tied(Model):
    """One weight as an embedding and as a linear layer, one linear layer three times, one by hand."""

    def build(self):
        self.embed, self.again = nn.Embedding(9, 6), nn.Linear(6, 6)
        self.matrix = nn.Parameter(torch.randn(6, 6))

    def encode(self, x):
        h = self.embed(x["ids"]).mean(1)
        h = torch.tanh(self.again(torch.tanh(self.again(self.again(h)))))
        return torch.tanh(F.linear(h, self.embed.weight)) @ self.embed.weight + h @ self.matrix


class Turned(Model):
    """Weights that a product takes from the left, or times a constant."""

    def build(self):
        self.up = nn.Linear(5, 6)
        self.left, self.scaled = (nn.Parameter(torch.randn(6, 6)) for _ in range(2))

    def encode(self, x):
        h = torch.tanh(self.up(x["x"]))
        return (self.left @ h.T).T + torch.addmm(h, h, self.scaled, alpha=2.0)


class Frozen(Plain):
    def build(self):
        super().build()
        self.still, self.unused = nn.Linear(6, 6).requires_grad_(False), nn.Linear(2, 2)

    def encode(self, x):
        return self.still(super().encode(x))


class Checkpointed(Plain):
    def encode(self, x):
        return checkpoint(self.trunk, x["x"].requires_grad_(), use_reentrant=False)


class Dropout(Plain):
    def encode(self, x):
        return F.dropout(super().encode(x), 0.5, self.training)


class BatchNorm(Model):
    def build(self):
        self.trunk = nn.Sequential(
            nn.Linear(5, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6), nn.LayerNorm(6)
        )

    def encode(self, x):
        return self.trunk(x["x"])


class LSTM(Model):
    def build(self):
        self.lstm = nn.LSTM(5, 3, bidirectional=True, batch_first=True)

    def encode(self, x):
        return self.lstm(x["sequence"])[0].mean(1)


class Cell(Model):
    """A recurrent cell by hand: its weights are used once per time step."""

    def build(self):
        self.cell = nn.LSTMCell(5, 6)

    def encode(self, x):
        state = None
        for step in x["sequence"].unbind(1):
            state = self.cell(step, state)
        return state[0]


class Attention(Model):
    def build(self):
        self.up, self.norm = nn.Linear(5, 6), nn.LayerNorm(6)
        self.attention = nn.MultiheadAttention(6, 2, batch_first=True)

    def encode(self, x):
        h = self.up(x["sequence"])
        return self.norm(h + self.attention(h, h, h, need_weights=False)[0]).mean(1)


class Convolution(Model):
    def build(self):
        self.conv, self.strided = nn.Conv1d(5, 6, 3, padding=1), nn.Conv1d(6, 6, 2, stride=2, groups=2)

    def encode(self, x):
        return self.strided(torch.relu(self.conv(x["sequence"].transpose(1, 2)))).mean(2)


class Embedding(Model):
    def build(self):
        self.embed, self.padded = nn.Embedding(9, 6), nn.Embedding(9, 6, padding_idx=0)
        self.bag, self.scaled = nn.EmbeddingBag(9, 6), nn.Embedding(9, 6, scale_grad_by_freq=True)

    def encode(self, x):
        tables = (self.embed, self.padded, self.scaled)
        return sum(table(x["ids"]) for table in tables).mean(1) + self.bag(x["ids"])


class Penalised(Plain):
    """A weight that also enters the losses directly, and one behind a long chain of views."""

    def build(self):
        self.trunk = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))

    def forward(self, x):
        chain = self.trunk[2].weight.t().reshape(-1).view(4, 9).t().reshape(-1).view(36).exp().mean()
        return [
            loss + i * self.trunk[0].weight.square().mean() + chain
            for i, loss in enumerate(super().forward(x))
        ]


KINDS = [
    Plain,
    Partly,
    Tied,
    Frozen,
    Checkpointed,
    Dropout,
    BatchNorm,
    LSTM,
    Cell,
    Attention,
    Convolution,
    Embedding,
]
KINDS += [Penalised, Turned]


def build(kind):
    torch.manual_seed(0)
    return kind()


def inputs(n=7, seed=1):
    g = torch.Generator().manual_seed(seed)
    return {
        "x": torch.randn(n, 5, generator=g),
        "y": torch.randint(0, 2, (n, T), generator=g),
        "ids": torch.randint(0, 9, (n, 4), generator=g),
        "sequence": torch.randn(n, 4, 5, generator=g),
    }


def losses_of(model, seed=1):
    torch.manual_seed(seed)
    return dict(zip(names(T), model(inputs(seed=seed)), strict=True))


def plainly(model, seed=1):
    """Gramian and gradients by one backward per task, everything in full."""
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    losses = losses_of(model, seed)
    rows = naive_rows(losses.values(), [p for _, p in named])
    shared = [c for c in range(len(named)) if sum(row[c] is not None for row in rows) >= 2]
    gram = naive_gram(rows, shared)
    weights = Probe(T).weights(gram, None, np.arange(T))
    out = dict.fromkeys(n for n, _ in model.named_parameters())
    for c, (name, _) in enumerate(named):
        each = weights if c in shared else np.ones(T)
        terms = [w * row[c] for w, row in zip(each, rows, strict=True) if row[c] is not None]
        out[name] = sum(terms) if terms else None
    return gram, out


def assert_gram(found, expected):
    norms = np.sqrt(np.diag(expected))
    assert (np.abs(found - expected) <= 1e-5 * np.outer(norms, norms)).all()


@pytest.fixture
def forced(monkeypatch, mode):
    """Keep every weight's factors that can be kept, and take their Gramian in one way only."""
    if mode in ("closed", "formed"):
        monkeypatch.setattr(factored, "_faster", lambda *arguments: True)
        monkeypatch.setattr(factored, "_closed", lambda *arguments: 0 if mode == "closed" else 1 << 60)
        return "auto"
    return mode


@pytest.mark.parametrize("mode", ["auto", "rows", "gramian", "closed", "formed"])
@pytest.mark.parametrize("kind", KINDS)
def test_gramian_and_gradients_are_those_of_the_plain_computation(kind, mode, forced):
    model, twin = build(kind), build(kind)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    for step in range(2):
        model.zero_grad()
        gram, gradients = plainly(twin, step)
        balancer(losses_of(model, step)).backward()
        assert_gram(balancer.strategy.seen, gram)
        assert_same(gradients_of(model), gradients, 2e-6)


@pytest.mark.parametrize("mode", ["closed", "formed"])
@pytest.mark.parametrize("scale", [1.0, 65536.0])
def test_incoming_factor_and_accumulation(mode, scale, forced):
    model, twin = build(Tied), build(Tied)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    expected = {}
    for step in range(2):
        balancer.backward(losses_of(model, step), gradient=torch.tensor(scale))
        for name, gradient in plainly(twin, step)[1].items():
            expected[name] = gradient * scale + expected.get(name, 0)
    assert_same(
        {k: v / scale for k, v in gradients_of(model).items()}, {k: v / scale for k, v in expected.items()}
    )


def planned(losses, params, all_of_them):
    losses = list(losses)
    return factored.plan(graph.Graph(losses, lambda *_: None), len(losses), params, all_of_them)


FACTORED = {
    Plain: {"trunk.0.weight", "trunk.2.weight"},
    Tied: {"again.weight", "matrix"},
    Cell: {"cell.weight_ih", "cell.weight_hh"},
    Embedding: {"embed.weight", "padded.weight"},
    Attention: {"up.weight", "attention.in_proj_weight", "attention.out_proj.weight"},
    LSTM: set(),
    Convolution: set(),
    Penalised: {"trunk.4.weight"},
    Turned: {"up.weight"},
}


@pytest.mark.parametrize("mode", ["closed"])
@pytest.mark.parametrize("kind", FACTORED)
def test_which_weights_can_stay_factors(kind, forced):
    model = build(kind)
    named = [(n, p) for n, p in model.named_parameters() if not n.startswith("heads")]
    plan = planned(losses_of(model).values(), [p for _, p in named], True)
    assert {named[k][0] for k in plan} == FACTORED[kind]


def test_choice_follows_the_cost():
    """Few samples and a wide layer: factors; many samples and a narrow one: rows."""

    def chosen(n, width):
        layer = nn.Linear(width, width)
        z = layer(torch.randn(n, width))
        return bool(planned([z.sum(), z.square().sum()], [layer.weight], False))

    assert chosen(16, 256) and not chosen(4096, 32)
    wide = nn.Linear(8, 4096)
    z = wide(torch.randn(200, 8))
    both = [z.sum(), z.square().sum()]
    assert not planned(both, [wide.weight], True)  # D is larger than the gradient
    table = nn.Embedding(1000, 4)
    few, many = table(torch.arange(9)), table(torch.zeros(4000, dtype=torch.long))
    assert planned([few.sum(), few.sum()], [table.weight], False)
    assert not planned([many.sum(), many.sum()], [table.weight], False)


@pytest.mark.parametrize("mode", ["closed"])
def test_no_weight_gradient_is_formed_but_the_weighted_one(forced):
    """The passes ask autograd for no gradient of a weight whose gradients stay factors."""
    model = build(Plain)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    asked = []
    original = torch.autograd.grad

    def spy(outputs, inputs, *args, **kwargs):
        asked.append([i for i in inputs if isinstance(i, torch.Tensor)])
        return original(outputs, inputs, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.autograd, "grad", spy)
        balancer.backward(losses_of(model))
    assert len(asked) == T
    assert all(p.dim() == 1 for wanted in asked for p in wanted)


@pytest.mark.parametrize("mode", ["closed", "formed"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", [Plain, Tied, Attention])
def test_autocast(kind, dtype, forced):
    """The layers' own products are in low precision, the Gramian of what they give is not."""
    model, twin = build(kind), build(kind)
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    with torch.autocast("cpu", dtype):
        losses = losses_of(model)
        balancer.backward({k: v.float() for k, v in losses.items()})
        other = Balancer(Probe, names(T), twin, gradients="rows")
        other.backward({k: v.float() for k, v in losses_of(twin).items()})
    expected = other.strategy.seen
    norms = np.sqrt(np.diag(expected))
    assert (np.abs(balancer.strategy.seen - expected) <= 0.02 * np.outer(norms, norms)).all()
    for name, gradient in gradients_of(twin).items():
        found = gradients_of(model)[name]
        assert found.dtype == torch.float32
        assert (found - gradient).norm() <= 0.02 * gradient.norm(), name


@pytest.mark.parametrize("mode", ["closed", "formed"])
def test_samples_that_cancel(forced):
    """Sums over samples fifty times smaller than their terms: the factors keep the accuracy of rows."""
    torch.manual_seed(0)
    model = nn.ModuleList([nn.Linear(64, 64, bias=False)])
    half, mix = torch.randn(16, 64), torch.randn(T, 16, 64).repeat(1, 2, 1)
    x = torch.cat([half, -half + 0.02 * torch.randn(16, 64)])
    rows = [(m.double().T @ x.double()).flatten() for m in mix]
    exact = torch.stack(rows) @ torch.stack(rows).T
    balancer = Balancer(Probe, names(T), model, gradients=forced)
    z = model[0](x)
    balancer.backward({f"t{i}": (z * m).sum() for i, m in enumerate(mix)})
    assert_gram(balancer.strategy.seen, exact.numpy())


# features ---------------------------------------------------------------------------------------------------


def at_features(model, seed=1):
    """Gramian at the heads' input, and the gradients it leads to."""
    torch.manual_seed(seed)
    x = inputs(seed=seed)
    h = model.encode(x)
    losses = [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(model.heads)]
    rows = torch.stack(
        [torch.autograd.grad(loss, h, retain_graph=True)[0].flatten().double() for loss in losses]
    )
    weights = Probe(T).weights((rows @ rows.T).numpy(), None, np.arange(T))
    model.zero_grad()
    sum(w * loss for w, loss in zip(weights, losses, strict=True)).backward()
    gradients = gradients_of(model)
    for i, head in enumerate(model.heads):
        for name, _ in head.named_parameters():
            gradients[f"heads.{i}.{name}"] /= weights[i]
    return (rows @ rows.T).numpy(), gradients


@pytest.mark.parametrize("given", ["module", "tensor"])
@pytest.mark.parametrize("kind", [Plain, BatchNorm])
def test_features(kind, given):
    model, twin = build(kind), build(kind)
    module = model.trunk if given == "module" else None
    balancer = Balancer(Probe, names(T), model, gradients="features", features=module)
    for step in range(2):
        model.zero_grad()
        gram, gradients = at_features(twin, step)
        if given == "module":
            balancer(losses_of(model, step)).backward()
        else:
            x = inputs(seed=step)
            h = model.encode(x)
            each = [F.cross_entropy((i + 1) * head(h), x["y"][:, i]) for i, head in enumerate(model.heads)]
            balancer.backward(dict(zip(names(T), each, strict=True)), features=h)
        assert_gram(balancer.strategy.seen, gram)
        assert_same(gradients_of(model), gradients, 2e-6)


def test_first_tensor_of_a_module_s_output_is_the_representation():
    model, twin = build(LSTM), build(LSTM)
    balancer = Balancer(Probe, names(T), model, gradients="features", features=model.lstm)
    balancer(losses_of(model)).backward()
    torch.manual_seed(1)
    x = inputs(seed=1)
    h = twin.lstm(x["sequence"])[0]
    each = [F.cross_entropy((i + 1) * head(h.mean(1)), x["y"][:, i]) for i, head in enumerate(twin.heads)]
    rows = torch.stack(
        [torch.autograd.grad(loss, h, retain_graph=True)[0].flatten().double() for loss in each]
    )
    assert_gram(balancer.strategy.seen, (rows @ rows.T).numpy())


def test_features_equal_rows_where_the_trunk_only_turns_the_gradient():
    """With one sample and an orthonormal trunk input the two Gramians are the same up to a factor."""
    torch.manual_seed(0)
    model = nn.ModuleDict(
        {"trunk": nn.Linear(5, 6, bias=False), "heads": nn.ModuleList(nn.Linear(6, 1) for _ in range(T))}
    )
    x, found = F.normalize(torch.randn(1, 5)), []
    for mode in ("rows", "features"):
        features = model["trunk"] if mode == "features" else None
        balancer = Balancer(Probe, names(T), model, gradients=mode, features=features)
        h = model["trunk"](x)
        balancer.backward({f"t{i}": head(h).square().mean() for i, head in enumerate(model["heads"])})
        found.append(balancer.strategy.seen)
    assert_gram(*found)


def test_a_pass_without_gradient_does_not_take_the_place_of_the_step_s_representation():
    model = build(Plain)
    balancer = Balancer(Probe, names(T), model, gradients="features", features=model.trunk)
    losses = losses_of(model)
    with torch.no_grad():
        model.trunk(inputs(seed=5)["x"])
    balancer.backward(losses)
    gram, _ = at_features(build(Plain))
    assert_gram(balancer.strategy.seen, gram)


def test_features_that_are_missing_or_bypassed():
    model = build(Partly)
    balancer = Balancer(Probe, names(T), model, gradients="features")
    with pytest.raises(ValueError, match=r"needs the shared representation of this step: name its module"):
        balancer.backward(losses_of(model))
    bypassed = Balancer(Probe, names(T), model, gradients="features", features=model.extra)
    with pytest.raises(ValueError, match="loss of 't0' does not pass through the representation"):
        bypassed.backward(losses_of(model))
    stale = Balancer(Probe, names(T), model, gradients="features", features=model.trunk)
    stale.backward(losses_of(model))
    with torch.no_grad():
        model.trunk(inputs()["x"])
    with pytest.raises(ValueError, match="needs the shared representation"):
        stale.backward({"t0": model.heads[0](torch.ones(1, 6)).sum()})


@pytest.mark.parametrize(
    ("strategy", "arguments", "message"),
    [
        (
            "mgda",
            {"gradients": "row"},
            "one of auto, rows, features, gramian, found 'row' .did you mean 'rows'",
        ),
        ("uw", {"gradients": "gramian"}, "UncertaintyWeighting weighs tasks by their losses alone"),
        ("graddrop", {"gradients": "features"}, "GradDrop weighs tasks by whole gradients"),
        (
            "mgda",
            {"features": nn.Linear(1, 1)},
            "features= belongs to gradients='features', found gradients='auto'",
        ),
        (
            "mgda",
            {"gradients": "features", "features": "trunk"},
            "should be a module of the model, found str",
        ),
        ("mgda", {"gradients": "features", "accumulation": "window"}, "needs the graph of the whole step"),
    ],
)
def test_arguments_that_do_not_fit(strategy, arguments, message):
    with pytest.raises(ValueError, match=message):
        Balancer(strategy, names(2), **arguments)


@pytest.mark.parametrize("mode", ["auto", "gramian", "features"])
def test_held_weights_and_copies(mode):
    """every= between two Gramians, and a deep copy of the model with its balancer."""
    model = build(Plain)
    features = model.trunk if mode == "features" else None
    balancer = Balancer("mgda", names(T), model, gradients=mode, features=features, every=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.balancer = balancer
    losses_of(model)  # a representation with its graph is at hand, and is no part of the copy
    twin = copy.deepcopy(model)
    other = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(5):
        for m, opt in ((model, optimizer), (twin, other)):
            opt.zero_grad()
            m.balancer(losses_of(m, step)).backward()
            opt.step()
    assert_same(gradients_of(model), gradients_of(twin), 0)
    assert model.balancer.strategy is not twin.balancer.strategy


@pytest.mark.parametrize("m", [1, 2, 10, 12])
def test_inner_products(m):
    """By dot products of few rows, by matrix products of many; a missing row is one of zeros."""
    rows = [torch.randn(200_000) + 3 for _ in range(m)]
    rows[m // 2] = None if m > 2 else rows[m // 2]
    wide = torch.stack([torch.zeros(200_000) if row is None else row for row in rows]).double()
    found = inner(rows)
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    torch.testing.assert_close(found, wide @ wide.T, rtol=1e-11, atol=0)


def test_graph_walk_finds_every_use_once():
    layer = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    z = layer(layer(x))
    behind = graph.Graph([z.sum(), z.square().sum()], lambda *_: None)
    found = graph.uses(behind, [layer.weight, layer.bias])
    assert list(found) == [0] and [use.kind for use in found[0]] == ["linear", "linear"]


@pytest.mark.parametrize("mode", ["rows", "gramian"])
def test_products_are_in_full_precision_under_the_caller_s_autocast(mode):
    """Backward inside autocast, and float32 products set to low precision: the Gramian does not care."""
    found = []
    for low in (False, True):
        model = build(Plain)
        balancer = Balancer(Probe, names(T), model, gradients=mode)
        losses = losses_of(model)
        torch.set_float32_matmul_precision("medium" if low else "highest")
        try:
            with torch.autocast("cpu", torch.bfloat16, enabled=low):
                balancer(losses).backward()
            assert torch.get_float32_matmul_precision() == ("medium" if low else "highest")
            assert balancer.strategy.precision == ("highest", False)
        finally:
            torch.set_float32_matmul_precision("highest")
        found.append(balancer.strategy.seen)
    assert_gram(*found)


def test_explain_says_what_is_kept_and_what_it_takes():
    model = nn.ModuleDict({"trunk": nn.Linear(512, 1024), "a": nn.Linear(1024, 1), "b": nn.Linear(1024, 1)})
    said = {}
    for mode in ("rows", "gramian", "features"):
        features = model["trunk"] if mode == "features" else None
        balancer = Balancer("mgda", ["a", "b"], model, gradients=mode, features=features)
        h = model["trunk"](torch.randn(64, 512))
        balancer.backward({task: model[task](h).square().mean() for task in ("a", "b")})
        said[mode] = balancer.explain()
    # rows: two of 512 x 1024 + 1024 floats and the heads; factors: two of 64 x 1024
    assert "Memory above plain training: 4.0 MiB" in said["rows"]
    assert "Memory above plain training: 0.5 MiB" in said["gramian"]
    assert (
        "kept as factors: 3 tensors, 526,336 parameters (trunk.weight, a.weight, b.weight)" in said["gramian"]
    )
    assert "one gradient of the representation per task" in said["features"]
    assert "one backward pass per task through its head, and one weighted pass" in said["features"]
    windowed = Balancer(
        "mgda", ["a", "b"], model, gradients="gramian", accumulation="window", accumulation_steps=1
    )
    h = model["trunk"](torch.randn(64, 512))
    windowed.backward({task: model[task](h).square().mean() for task in ("a", "b")})
    assert "No gradient is kept as factors" in windowed.explain()


class Live(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, and the most there were."""

    def __init__(self):
        super().__init__()
        self.known, self.now, self.peak = set(), 0, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
                self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key, size):
        self.known.discard(key)
        self.now -= size


@pytest.mark.parametrize("name", ["pcgrad", "graddrop", "db_mtl", "adatask"])
def test_explain_says_the_memory_that_a_step_takes(name):
    tasks = names(4)
    model = nn.ModuleDict({"trunk": nn.Linear(1024, 1024), **{task: nn.Linear(1024, 1) for task in tasks}})
    balancer = Balancer(name, tasks, model, gradients="rows")
    optimizer = torch.optim.SGD(model.parameters(), 1e-3)

    def losses():
        h = model["trunk"](torch.ones(4, 1024)).tanh()
        return {task: model[task](h).square().mean() for task in tasks}

    sum(losses().values()).backward()  # from here on there is a .grad, as in a loop that keeps it
    with Live() as plain:
        sum(losses().values()).backward()
    with Live() as balanced:
        for _ in range(3):
            balanced.peak = balanced.now
            optimizer.zero_grad(set_to_none=False)
            balancer(losses()).backward()
            found = (balanced.peak - plain.peak) / 2**20
            optimizer.step()
    said = float(re.search(r"plain training: ([\d.]+) MiB", balancer.explain())[1])
    assert 0.75 * found < said < 1.25 * found


def test_compiled_trunk_and_eager_heads():
    """Zeros where an eager graph has None, and linear layers whose gradients could stay factors."""
    found = []
    for compiled in (False, True):
        torch.compiler.reset()
        torch.manual_seed(0)
        trunk = nn.Sequential(nn.Linear(8, 256), nn.ReLU())
        run = torch.compile(trunk, backend="aot_eager") if compiled else trunk
        heads = nn.ModuleList([nn.Linear(256, 256) for _ in range(2)])
        model = nn.ModuleList([trunk, heads])
        h = run(torch.randn(4, 8))
        Balancer("mgda", ["t0", "t1"], model)(
            {f"t{i}": heads[i](h).square().mean() for i in range(2)}
        ).backward()
        found.append(gradients_of(model))
    assert_same(found[1], found[0], 1e-5)


def test_a_window_over_a_compiled_model_learns_what_is_shared():
    """Tasks are met in the first micro-batch, their rows are recorded when the window closes."""
    torch.compiler.reset()
    model, twin = toy(3), toy(3)
    compiled = torch.compile(model, backend="aot_eager")
    for one, run in ((model, compiled), (twin, twin)):
        balancer = Balancer("mgda", names(3), one, accumulation="window", accumulation_steps=2)
        for seed in range(2):
            (balancer(toy_losses(run, batch(seed=seed))) / 2).backward()
    found, right = gradients_of(model), gradients_of(twin)
    keys = [key for key, gradient in right.items() if gradient is not None]
    assert_same({key: found[key] for key in keys}, {key: right[key] for key in keys}, 1e-5)
