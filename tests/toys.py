"""Small models and reference computations that several test files share."""

import copy

import numpy as np
import torch
from torch import nn

from mtlweights import strategies


class Toy(nn.Module):
    """A two-task network with everything that trips an engine: frozen, unused and partly shared layers."""

    def __init__(self, n_tasks=2):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(3, 3)
        self.heads = nn.ModuleList([nn.Linear(8, 1 if i % 2 == 0 else 3) for i in range(n_tasks)])

    def forward(self, batch):
        x, y, z = batch
        hidden = self.frozen(self.encoder(x))
        losses = []
        for i, head in enumerate(self.heads):
            out = head(hidden)
            scale = 10.0 ** (i // 2)
            if i % 2 == 0:
                losses.append(scale * (out[:, 0] - (-1) ** (i // 2) * y).pow(2).mean())
            else:
                losses.append(scale * nn.functional.cross_entropy(out, (z + i // 2) % 3))
        return losses


def names(n_tasks):
    return [f"t{i}" for i in range(n_tasks)]


def toy(n_tasks=2, seed=0, dtype=torch.float32):
    torch.manual_seed(seed)
    return Toy(n_tasks).to(dtype)


def batch(n=16, seed=1, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=g).to(dtype)
    return x, torch.randn(n, generator=g).to(dtype), torch.randint(0, 3, (n,), generator=g)


class Named(Toy):
    """Its forward, which wrappers call, gives task -> loss, of the tasks asked for."""

    def forward(self, data, only=None):
        return losses_of(super().forward, data, only)


def named(dtype=torch.float32, unused=True):
    """Of three tasks; without the layer that no task reaches, for wrappers that do not allow one."""
    model = Named(3)
    model.load_state_dict(toy(3).state_dict())
    model.unused.requires_grad_(unused)
    return model.to(dtype)


def losses_of(model, data, only=None):
    return {f"t{i}": loss for i, loss in enumerate(model(data)) if only is None or i in only}


def backward(balancer, losses, counts=None, *, factor=1.0, path="backward"):
    """A step's backward on ``losses()``, once per batch that the strategy stacks."""
    parts = balancer.strategy.batches
    for _ in range(parts):
        if path == "call":
            (balancer(losses(), counts) * (factor / parts)).backward()
        else:
            balancer.backward(losses(), counts, gradient=torch.tensor(factor / parts))


def clone(model):
    return copy.deepcopy(model)


def gradients_of(model):
    return {n: None if p.grad is None else p.grad.clone() for n, p in model.named_parameters()}


def row_of(model, data, task, params):
    """One task's gradient, from a forward pass of its own."""
    return torch.autograd.grad(losses_of(model, data)[task], params)


def naive_rows(losses, params):
    """[T][n] gradients in float64, zero where not reached, by one backward per loss."""
    out = []
    for loss in losses:
        grads = torch.autograd.grad(loss, params, retain_graph=True, allow_unused=True)
        out.append([None if g is None else g.double() for g in grads])
    return out


def shared_of(model):
    return [p for n, p in model.named_parameters() if n.startswith("encoder")]


def flat_rows(model, data, only=None):
    rows = naive_rows(losses_of(model, data, only).values(), shared_of(model))
    return torch.stack([torch.cat([g.flatten() for g in row]) for row in rows])


def naive_gram(rows, columns):
    some = {c: next(row[c] for row in rows if row[c] is not None) for c in columns}
    flat = [
        torch.cat([(some[c] * 0 if row[c] is None else row[c]).flatten() for c in columns]) for row in rows
    ]
    matrix = torch.stack(flat).numpy()
    return matrix @ matrix.T


def direct(strategy, rows, columns, losses, index):
    """A JacobianStrategy's direction in its first step, cut into one piece per column, and its weights."""
    some = {c: next(row[c] for row in rows if row[c] is not None) for c in columns}
    flat = [torch.cat([(some[c] * 0 if r[c] is None else r[c]).flatten() for c in columns]) for r in rows]
    matrix = torch.stack(flat).float()
    strategy.sizes = [some[c].numel() for c in columns]
    strategy.rows = {key: torch.zeros_like(matrix) for key in strategy.row_state}
    strategy.rows |= {key: torch.zeros(len(rows), len(columns)) for key in strategy.tensor_state}
    heights = {key: strategy.n_tasks if per_task else 1 for key, per_task in strategy.memory.items()}
    strategy.rows |= {key: matrix.new_zeros(n, matrix.shape[1]) for key, n in heights.items()}
    out = strategy.direction(matrix, torch.tensor(losses, dtype=torch.float32), index)
    direction, weights = out if isinstance(out, tuple) else (out, None)
    pieces = dict(zip(columns, direction.split(strategy.sizes), strict=True))
    return pieces, np.ones(len(rows)) if weights is None else weights.numpy()


def naive_step(model, data, strategy, heads="paper", only=None):
    """The gradient a strategy should leave, written out without the engine: name -> gradient or None."""
    losses = losses_of(model, data, only)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    rows = naive_rows(losses.values(), [p for _, p in named])
    reach = [[r[c] is not None for r in rows] for c in range(len(named))]
    shared = [c for c, who in enumerate(reach) if sum(who) >= 2]
    present = np.array([int(k[1:]) for k in losses])
    index = slice(None) if len(present) == strategy.n_tasks else present
    values = np.array([loss.item() for loss in losses.values()])
    pieces = {}
    if isinstance(strategy, strategies.JacobianStrategy):
        pieces, trunk = direct(strategy, rows, shared, values, index)
    elif isinstance(strategy, strategies.GramStrategy):
        where = shared
        if strategy.measured_at == "last_shared":
            owner = named[shared[-1]][0].rpartition(".")[0]
            where = [c for c in shared if named[c][0].startswith(owner)]
        k = strategy.batches  # of the same data
        trunk = strategy.weights(np.tile(naive_gram(rows, where), (k, k)), values, present)
        fold = [np.reshape(w, (k, -1)).sum(0) for w in (trunk if isinstance(trunk, tuple) else [trunk])]
        trunk = tuple(fold) if len(fold) > 1 else fold[0]
    else:
        point = torch.tensor(values).requires_grad_()
        trunk = torch.autograd.grad(strategy.combine(point, index), point)[0].numpy()
    trunk, own = trunk if isinstance(trunk, tuple) and heads == "paper" else (trunk, trunk)
    trunk, own = (w[0] if isinstance(w, tuple) else w for w in (trunk, own))
    head = np.ones(len(trunk)) if (strategy.heads if heads == "paper" else heads) == "plain" else own
    out = dict.fromkeys([n for n, _ in model.named_parameters()])
    for c, (name, _) in enumerate(named):
        weights = trunk if c in shared else head
        terms = [float(w) * r[c] for w, r in zip(weights, rows, strict=True) if r[c] is not None]
        out[name] = pieces[c].view_as(terms[0]) if c in pieces else sum(terms) if terms else None
    return out


def assert_same(found, expected, tolerance=1e-6):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (found[name] is None) == (gradient is None), name
        if gradient is not None:
            worst = (found[name].double() - gradient.double()).abs().max().item()
            assert worst <= tolerance * max(1.0, gradient.abs().max().item()), (name, worst)


def assert_same_state(found, expected):
    """Bit for bit, through nested dicts and lists."""
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype and torch.equal(found.nan_to_num(7e7), expected.nan_to_num(7e7))
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key in expected:
            assert_same_state(found[key], expected[key])
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for a, b in zip(found, expected, strict=True):
            assert_same_state(a, b)
    else:
        assert found == expected


def nearly_opposed(angle, seed=0, size=1000):
    """Two float32 rows ``angle`` from opposed."""
    rng = np.random.default_rng(seed)
    a, c = np.linalg.qr(rng.normal(size=(size, 2)))[0].T
    return torch.tensor(np.stack([a, 1.3 * (np.sin(angle) * c - np.cos(angle) * a)]), dtype=torch.float32)


class Line(nn.Module):
    """Losses whose gradients are given rows."""

    def __init__(self, size, dtype=torch.float32):
        super().__init__()
        self.at = nn.Parameter(torch.zeros(size, dtype=dtype))

    def forward(self, rows):
        return {f"t{i}": (row.to(self.at.dtype) * self.at).sum() + 1 for i, row in enumerate(rows)}
