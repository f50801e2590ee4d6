"""Gramians in float64 accuracy whichever way they are made, and what the strategies make of them."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from mtlweights.gradients import factored
from mtlweights.gradients.inner_products import by_strips, compensated, inner, mix
from mtlweights.strategies import GramStrategy, JacobianStrategy
from tests.toys import Line, names, nearly_opposed

OPPOSED = ["nash_mtl", "fairgrad", "config", "upgrad", "dualproj"]


class Probe(GramStrategy):
    """Keeps the Gramian it is given."""

    def weights(self, gram, losses, present):
        self.seen = gram
        return np.ones(len(gram))


class Measured(Probe):
    measured_at = "last_shared"


class Stacked(Probe):
    """The rows of two batches, one above the other."""

    batches = 2


class Validated(Probe):
    """The rows of as many validation losses below those of the tasks."""

    def lookahead(self, present):
        return None

    def weights(self, gram, losses, present):
        return super().weights(gram, losses, np.arange(len(losses)))[::2]


def exact(rows):
    """The Gramian of rows [m, P]: products of float32 are exact in float64, and so is their sum by fsum."""
    rows = [row.double() for row in rows]
    return np.array([[math.fsum((a * b).tolist()) for a in rows] for b in rows])


def error(found, expected):
    """Of the cosines, and of the lengths."""
    size = np.sqrt(np.diagonal(expected))
    return np.abs((np.asarray(found) - expected) / size / size[:, None]).max()


@pytest.mark.parametrize("make", [inner, by_strips, compensated])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5), (3, 70_001), (12, 40_000)])
def test_products_of_rows(make, dtype, m, n):
    """On the CPU, as on a GPU, as where there is no float64; rows of very different lengths."""
    torch.manual_seed(0)
    ends = (-18, 18) if dtype == torch.float32 else (-1, 1)
    rows = [((torch.randn(n) + 0.1) * 10**k).to(dtype) for k in torch.linspace(*ends, m)]
    found = make(rows)
    assert found.dtype == torch.float64 and torch.equal(found, found.T)
    assert error(found, exact(rows)) < 1e-12


def test_a_missing_row_is_one_of_zeros():
    rows = [torch.randn(70_001), None, torch.randn(70_001)]
    assert torch.equal(inner(rows), inner([rows[0], torch.zeros(70_001), rows[2]]))


@pytest.mark.parametrize("make", [inner, by_strips, compensated])
def test_rows_that_are_not_finite_or_zero(make):
    rows = torch.tensor([[1.0, 2.0], [math.inf, 1.0], [0.0, 0.0]]).unbind()
    found = make(rows)
    assert found[0, 0] == 5 and not found[1].isfinite().any() and (found[2, [0, 2]] == 0).all()


def test_weighted_sums_are_rounded_once():
    a, c = torch.randn(300_000), torch.randn(300_000)
    rows, weights = [a, (1e-4 * c - a)], [1e4 / 3, 1e4 / 3]
    expected = sum(row.double() * w for row, w in zip(rows, weights, strict=True))
    assert torch.equal(mix(rows, weights), expected.float())


class Net(nn.Module):
    """An embedding, a linear layer whose inputs and outputs are kept, a bias, two heads."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.embed, self.mid = nn.Embedding(60, 24, padding_idx=0), nn.Linear(24, 40)
        self.heads = nn.ModuleList([nn.Linear(40, 1) for _ in range(2)])
        self.trunk = [self.embed.weight, self.mid.weight, self.mid.bias]

    def losses(self, seed=0, n=16):
        ids = torch.randint(0, 60, (n, 2), generator=torch.Generator().manual_seed(seed))
        tokens = self.embed(ids)
        h = tokens.mean(1)
        z = self.mid(h)
        self.kept = ids, tokens, h.detach(), z
        out = [head(torch.tanh(z))[:, 0] for head in self.heads]
        return {"t0": ((out[0] - 1) ** 2).mean(), "t1": ((out[1] + out[0].detach()) ** 2).mean()}

    def rows(self, losses):
        """As float32 has them."""
        grads = [torch.autograd.grad(loss, self.trunk, retain_graph=True) for loss in losses.values()]
        return [torch.cat([g.flatten() for g in row]).double() for row in grads]

    def products(self, losses):
        """What exact arithmetic makes of the two factors of the weights' gradients."""
        ids, tokens, h, z = self.kept
        out = []
        for loss in losses.values():
            at_tokens, at_z, bias = torch.autograd.grad(loss, [tokens, z, self.mid.bias], retain_graph=True)
            at_tokens = at_tokens.double() * (ids > 0)[..., None]
            table = torch.zeros(60, 24, dtype=torch.float64).index_add_(
                0, ids.flatten(), at_tokens.flatten(0, 1)
            )
            out.append(torch.cat([table.flatten(), (at_z.double().T @ h.double()).flatten(), bias.double()]))
        return out


def gram_of(rows):
    matrix = torch.stack(rows).numpy()
    return matrix @ matrix.T


@pytest.mark.parametrize("factor", [1.0, 1e-3, 65536.0])
@pytest.mark.parametrize("mode", ["rows", "auto", "samples", "formed"])
def test_every_mode(mode, factor, monkeypatch):
    """Products of rows, and of factors: over samples, over tokens, and of gradients formed from them."""
    if mode in ("samples", "formed"):
        monkeypatch.setattr(factored, "_closed", lambda *_: -1 if mode == "samples" else 1 << 60)
        monkeypatch.setattr(factored, "BLOCK", 100)  # several blocks
        monkeypatch.setattr(factored, "LARGE", 100)
    model = Net()
    balancer = Balancer(
        Probe, names(2), model, gradients={"samples": "gramian", "formed": "gramian"}.get(mode, mode)
    )
    losses = model.losses()
    expected = gram_of(model.rows(losses) if mode == "rows" else model.products(losses))
    (balancer(losses) * factor).backward()
    if mode in ("samples", "formed"):
        assert {"embed.weight", "mid.weight"} <= set(balancer._engine.measure.factored)
    tolerance = 1e-12 if factor in (1.0, 65536.0) else 1e-6  # 1e-3 rounds what passes through float32
    assert error(balancer.strategy.seen, expected) < tolerance


@pytest.mark.parametrize("mode", ["auto", "gramian"])
def test_an_empty_batch_adds_nothing(mode):
    model = Net()
    balancer = Balancer(Probe, names(2), model, gradients=mode)
    balancer({task: loss.nan_to_num() for task, loss in model.losses(n=0).items()}).backward()
    assert (balancer.strategy.seen == 0).all() and model.trunk[0].grad.norm() == 0


def test_features_mode():
    model = Net()
    balancer = Balancer(Probe, names(2), model, gradients="features", features=model.mid)
    losses = model.losses()
    z = model.kept[-1]
    rows = [torch.autograd.grad(loss, z, retain_graph=True)[0].flatten() for loss in losses.values()]
    balancer(losses).backward()
    assert error(balancer.strategy.seen, exact(rows)) < 1e-12


def test_measured_at_one_layer():
    model = Net()
    balancer = Balancer(Measured, names(2), model, gradients="rows")
    for step in range(2):
        losses = model.losses(step)
        layer = model.trunk[1:]
        grads = [torch.autograd.grad(loss, layer, retain_graph=True) for loss in losses.values()]
        rows = [torch.cat([g.flatten() for g in row]) for row in grads]
        balancer(losses).backward()
        assert error(balancer.strategy.seen, exact(rows)) < 1e-12


@pytest.mark.parametrize("strategy", [Probe, Stacked])
def test_windows(strategy):
    """Of the rows that the window has summed, in float32; two batches' rows are kept apart."""
    model = Net()
    balancer = Balancer(strategy, names(2), model, accumulation="window", accumulation_steps=2)
    parts = []
    for k in range(2):
        losses = model.losses(k)
        parts.append([row.float() for row in model.rows(losses)])
        balancer(losses).backward()
    rows = parts[0] + parts[1] if strategy is Stacked else [a + b for a, b in zip(*parts, strict=True)]
    assert error(balancer.strategy.seen, exact(rows) / (1 if strategy is Stacked else 4)) < 1e-12


def test_validation_rows():
    model = Net()
    balancer = Balancer(Validated, names(2), model)
    held_out = model.rows(model.losses(9))
    losses = model.losses()
    rows = model.rows(losses) + held_out
    balancer.validate(lambda: model.losses(9))
    balancer(losses).backward()
    assert error(balancer.strategy.seen, exact(rows)) < 1e-12


@pytest.mark.parametrize("mode", ["rows", "gramian"])
def test_half_precision(mode):
    """A bfloat16 model: its rows or factors as they are, products and sums in float64."""
    model = Net().bfloat16()
    balancer = Balancer(Probe, names(2), model, gradients=mode)
    losses = model.losses()
    expected = gram_of(model.rows(losses) if mode == "rows" else model.products(losses))
    balancer(losses).backward()
    assert error(balancer.strategy.seen, expected) < 1e-12


@pytest.mark.parametrize("name", ["nash_mtl", "upgrad", "graddrop", "db_mtl", "adatask"])
def test_a_complex_parameter_is_one_of_pairs(name):
    """Same steps as with pairs of real numbers; the first parameter makes pairs start at an odd place."""
    torch.manual_seed(0)
    first, pairs, data = torch.randn(3), torch.randn(4, 2), torch.randn(2, 4, dtype=torch.complex64)
    found = []
    for start in (pairs, torch.view_as_complex(pairs)):
        params = nn.ParameterList([nn.Parameter(first.clone()), nn.Parameter(start.clone())])
        balancer = Balancer(name, names(2), shared=list(params))
        z = params[1] if params[1].is_complex() else torch.view_as_complex(params[1])
        losses = [((z * x - 1).abs() ** 2).mean() + (params[0].sum() - i) ** 2 for i, x in enumerate(data)]
        balancer(dict(zip(names(2), losses, strict=True))).backward()
        gradient = params[1].grad
        found.append((params[0].grad, torch.view_as_real(gradient) if gradient.is_complex() else gradient))
    torch.testing.assert_close(found[0], found[1])


# near-opposed gradients -----------------------------------------------------------------------------------


def direction(name, rows, dtype=torch.float32):
    model = Line(rows.shape[1], dtype)
    balancer = Balancer(name, names(len(rows)), model, shared=[model.at])
    balancer(model(rows)).backward()
    return model.at.grad.double()


@pytest.mark.parametrize("name", OPPOSED)
@pytest.mark.parametrize("angle", [1e-2, 1e-3, 3e-4, 1e-4])
def test_the_direction_near_opposed_gradients_is_that_of_float64(name, angle):
    for seed in range(3):
        rows = nearly_opposed(angle, seed)
        found, expected = direction(name, rows), direction(name, rows, torch.float64)
        assert (found - expected).norm() < 1e-6 * expected.norm()
        if "non_conflicting" in strategies.get(name).properties:
            cosines = rows.double() @ found / rows.double().norm(dim=1) / found.norm()
            assert cosines.min() > -1e-7


class Layer(nn.Module):
    """A linear layer, and losses that are linear in what comes out."""

    def __init__(self, dtype):
        super().__init__()
        torch.manual_seed(0)
        self.mid, self.x = nn.Linear(30, 50, bias=False).to(dtype), torch.randn(8, 30).to(dtype)

    def forward(self, rows):
        z = self.mid(self.x)
        return {f"t{i}": (row.to(z).view(8, 50) * z).sum() for i, row in enumerate(rows)}


@pytest.mark.parametrize("mode", ["rows", "auto", "gramian"])
@pytest.mark.parametrize("name", OPPOSED)
def test_and_so_it_is_from_factors(name, mode):
    """Rows in float32 are rounded before they are weighted, factors are not."""
    rows = nearly_opposed(3e-4, size=400)
    found = {}
    for dtype in (torch.float32, torch.float64):
        model = Layer(dtype)
        balancer = Balancer(name, names(2), model, shared=[model.mid.weight], gradients=mode)
        balancer(model(rows)).backward()
        found[dtype] = model.mid.weight.grad.double()
    expected = found[torch.float64]
    limit = 2e-3 if mode == "rows" else 1e-6
    assert (found[torch.float32] - expected).norm() < limit * expected.norm()


@pytest.mark.parametrize("mode", ["rows", "gramian"])
def test_config_steps_where_one_loss_is_the_sum_of_others(mode):
    shortest = []
    for seed in range(40):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 2))
        balancer = Balancer("config", names(3), shared=list(model.parameters()), gradients=mode)
        a, b = ((model(torch.randn(64, 8)) - torch.randn(64, 2)) ** 2).mean(0)
        balancer({"t0": a, "t1": b, "t2": a + b}).backward()
        length = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
        shortest.append(float(length / balancer.metrics()["norm/t2"]))
    assert min(shortest) > 1 and max(shortest) < 3


def test_no_step_is_thrown_far_while_two_distances_are_balanced():
    """Nash-MTL on two points, down to where their gradients are opposed: its direction has length sqrt(2)."""
    torch.manual_seed(0)
    a, b = torch.randn(2, 1000)
    model = Line(1000)
    nn.init.normal_(model.at)
    balancer = Balancer("nash_mtl", names(2), model, shared=[model.at])
    for step in range(1000):
        model.at.grad = None
        losses = {f"t{i}": ((model.at - point) ** 2).sum() / 2 for i, point in enumerate((a, b))}
        balancer(losses).backward()
        assert model.at.grad.norm() < 1.63, step
        model.at.data -= 0.3 * 0.995**step * model.at.grad
    smallest = (a - b).norm() ** 2 / 4
    assert sum(losses.values()) < smallest * 1.005


@pytest.mark.parametrize("name", ["nash_mtl", "fairgrad"])
def test_the_direction_is_zero_where_gradients_cancel(name):
    """Not the float32 rounding of the rows, made a million times longer; and no weight is a million."""
    for seed in range(5):
        a = nearly_opposed(1.0, seed)[0]
        model = Line(1000)
        balancer = Balancer(name, names(2), model, shared=[model.at])
        balancer(model(torch.stack([a, -1.3 * a]))).backward()
        assert model.at.grad.norm() < 1e-4
        assert max(w.item() for w in balancer.weights.values()) < 1e4


# extreme scales -------------------------------------------------------------------------------------------

WHOLE = [
    name
    for name in strategies.names()
    if issubclass(strategies.get(name), (GramStrategy, JacobianStrategy))
    and strategies.get(name).batches == 1
    and "validate" not in strategies.get(name).hooks()
    and name != "graddrop"  # draws other numbers in float64
]


@pytest.mark.parametrize("name", WHOLE)
def test_losses_in_any_unit(name):
    """From 1e-24 to (210e9 Pa)^2, under a GradScaler's factor: as float64 has it, times that."""
    scales = [(1e-24, 1.0), (210e9**2, 1.0)]
    if issubclass(strategies.get(name), GramStrategy):  # weights out of float32's range
        scales.append((210e9**2, 1e-24))
    for scale in scales:
        found = {}
        for dtype in (torch.float32, torch.float64):
            model = Net().to(dtype)
            balancer = Balancer(name, names(2), model)
            for step in range(2):
                model.zero_grad()
                losses = model.losses(step)
                scaled = {t: loss * s for (t, loss), s in zip(losses.items(), scale, strict=True)}
                (balancer(scaled) * 2.0**16).backward()
            found[dtype] = torch.cat([p.grad.double().flatten() for p in model.trunk])
        expected = found[torch.float64]
        assert (found[torch.float32] - expected).norm() < 1e-4 * expected.norm()
