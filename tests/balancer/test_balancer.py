"""The Balancer leaves the gradient that the strategy's paper defines, whatever the model and the path."""

import copy
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from tests.toys import (
    assert_same,
    assert_same_state,
    backward,
    batch,
    clone,
    gradients_of,
    losses_of,
    naive_step,
    names,
    row_of,
    toy,
)

ALL = strategies.names()


def stepped(name, n_tasks=2, only=None, path="call", **kwargs):
    model = toy(n_tasks)
    balancer = Balancer(name, names(n_tasks), model, **kwargs)
    backward(balancer, lambda: losses_of(model, batch(), only), path=path)
    return model, balancer


@pytest.mark.parametrize("heads", ["paper", "plain", "weighted"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_tasks", [2, 4])
def test_gradient_equals_the_definition(name, n_tasks, heads):
    if heads == "weighted" and strategies.get(name).signed_weights:
        with pytest.raises(ValueError, match="its weights may be negative"):
            Balancer(name, names(n_tasks), heads=heads)
        return
    model, _ = stepped(name, n_tasks, heads=heads)
    reference = strategies.get(name)(n_tasks)
    expected = naive_step(toy(n_tasks), batch(), reference, heads)
    assert_same(gradients_of(model), expected)
    assert gradients_of(model)["unused.weight"] is None and gradients_of(model)["frozen.weight"] is None


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("only", [(0, 2, 3), (1, 2), (3,)])
def test_missing_tasks(name, only):
    model, balancer = stepped(name, 4, only)
    if len(only) > 1:
        assert_same(gradients_of(model), naive_step(toy(4), batch(), strategies.get(name)(4), only=only))
    else:
        assert gradients_of(model)[f"heads.{only[0]}.weight"].abs().max() > 0
    weightless = name in ("adatask", "graddrop", "m_config", "metabalance", "trimmed_mean")
    assert set(balancer.weights) == (set() if weightless else {f"t{i}" for i in only})


@pytest.mark.filterwarnings("ignore:AutoLambda needs balancer.validate")
@pytest.mark.parametrize("name", ALL)
def test_both_paths_leave_the_same_gradients_over_several_steps(name):
    final = []
    for path in ("call", "backward"):
        model = toy(3)
        balancer = Balancer(name, names(3), model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for step in range(4):
            optimizer.zero_grad()
            counts = dict.fromkeys(names(3), 16)
            losses = partial(losses_of, model, batch(seed=step))
            backward(balancer, losses, counts, path=path)
            optimizer.step()
        balancer.end_epoch(dict.fromkeys(names(3), 0.5))
        final.append(gradients_of(model))
        assert int(balancer.strategy.step) == 4
    assert_same(*final)


@pytest.mark.parametrize("name", ALL)
def test_incoming_factor_stays_in_the_gradient_and_out_of_the_weights(name):
    plain, first = stepped(name, 3)
    for factor in (1.0, 1 / 4, 65536.0):
        model = toy(3)
        balancer = Balancer(name, names(3), model)
        backward(balancer, partial(losses_of, model, batch()), factor=factor)
        for task, weight in first.weights.items():
            assert balancer.weights[task].item() == pytest.approx(weight.item(), rel=1e-5)
        scaled = {n: None if g is None else g / factor for n, g in gradients_of(model).items()}
        assert_same(scaled, gradients_of(plain), 1e-5)


@pytest.mark.parametrize("name", ALL)
def test_adds_to_an_existing_gradient(name):
    model = toy()
    balancer = Balancer(name, names(2), model)
    backward(balancer, lambda: losses_of(model, batch()))
    once = gradients_of(model)
    backward(balancer, lambda: losses_of(model, batch()))
    twice = {n: None if g is None else 2 * g for n, g in once.items()}
    assert_same(gradients_of(model), twice, 1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if name != "graddrop"])  # draws follow the order
def test_without_a_model_parameters_are_found_from_the_losses(name):
    model = toy(3)
    balancer = Balancer(name, names(3))
    backward(balancer, lambda: losses_of(model, batch()))
    assert_same(gradients_of(model), gradients_of(stepped(name, 3)[0]))


@pytest.mark.parametrize("name", ALL)
def test_evaluation_is_the_plain_sum_and_touches_nothing(name):
    model = toy()
    balancer = Balancer(name, names(2), model)
    before = balancer.state_dict()
    losses = losses_of(model, batch())
    total = sum(loss.item() for loss in losses.values())
    with torch.no_grad():
        assert balancer(losses).item() == pytest.approx(total)
    model.eval()
    value = balancer(losses)
    with pytest.warns(UserWarning, match=r"backward\(\) with the model in evaluation mode") as caught:
        value.backward()
        balancer(losses_of(model, batch())).backward()
    assert len(caught) == 1 and value.item() == pytest.approx(total)
    model.train()
    assert_same_state(balancer.state_dict(), before)


@pytest.mark.parametrize("name", ALL)
def test_value_of_the_scalar(name):
    model = toy()
    balancer = Balancer(name, names(2), model)
    losses = losses_of(model, batch())
    values = torch.stack([x.detach() for x in losses.values()])
    strategy = strategies.get(name)(2)
    loss_based = isinstance(strategy, strategies.LossStrategy)
    expected = strategy.combine(values).item() if loss_based else values.sum().item()
    assert balancer(losses).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", [n for n in ALL if n != "equal"])
def test_shared_by_some_tied_and_reused_parameters(name):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 6)
            self.trunk = nn.Linear(6, 6)
            self.pair = nn.Linear(6, 6)
            self.out = nn.Linear(6, 7, bias=False)
            self.out.weight = self.embed.weight
            self.a, self.b = nn.Linear(6, 1), nn.Linear(6, 1)

        def forward(self, data):
            ids, y = data
            h = torch.tanh(self.trunk(self.embed(ids)))
            p = torch.tanh(self.pair(self.pair(h)))
            mse = nn.functional.mse_loss
            return [
                mse(self.a(p)[:, 0], y),
                mse(self.b(p)[:, 0], -y),
                nn.functional.cross_entropy(self.out(h), ids),
            ]

    data = torch.arange(7).repeat(3), torch.linspace(-1, 1, 21)
    torch.manual_seed(3)
    model = Mixed()
    anywhere = strategies.get(name).measured_at != "last_shared"
    expected = naive_step(clone(model), data, strategies.get(name)(3)) if anywhere else None
    balancer = Balancer(name, names(3), model)
    backward(balancer, lambda: losses_of(model, data), path="call")
    if expected is not None:
        assert_same(gradients_of(model), expected)
    text = balancer.explain()
    if not isinstance(balancer.strategy, strategies.LossStrategy):
        assert "embed.weight" in text and "pair.weight" in text and "Only t0: 2 tensors" in text


def test_a_task_first_seen_later_grows_the_shared_set():
    model = toy(2)
    balancer = Balancer("mgda", names(2), model)
    balancer(losses_of(model, batch(), only=(0,))).backward()
    assert "Shared: 0 tensors" in balancer.explain()
    model.zero_grad()
    balancer(losses_of(model, batch(), only=(1,))).backward()
    assert "Shared: 4 tensors" in balancer.explain()
    model.zero_grad()
    balancer(losses_of(model, batch())).backward()
    assert_same(gradients_of(model), gradients_of(stepped("mgda")[0]))


def test_what_was_shared_stays_shared_when_a_batch_does_not_reach_it():
    model = toy(2)
    balancer = Balancer("mgda", names(2), model)
    balancer(losses_of(model, batch())).backward()
    for _ in range(2):
        model.zero_grad()
        losses = losses_of(model, batch())
        losses["t0"] = model.heads[0].weight.pow(2).sum()
        balancer(losses).backward()
        assert "Shared: 4 tensors" in balancer.explain()
    row = row_of(model, batch(), "t1", list(model.encoder.parameters()))
    size = math.sqrt(sum(g.pow(2).sum().item() for g in row))
    assert balancer.metrics()["norm/t1"].item() == pytest.approx(size, rel=1e-5)
    assert balancer.metrics()["norm/t0"].item() == 0.0


@pytest.mark.parametrize(
    "choose",
    [
        lambda model: model.encoder[2],
        lambda model: [model.encoder[2]],
        lambda model: list(model.encoder[2].parameters()),
        lambda model: lambda name: name.startswith("encoder.2"),
    ],
    ids=["module", "modules", "parameters", "predicate"],
)
def test_shared_chooses_where_to_measure_and_not_what_is_weighted(choose):
    model = toy(2)
    balancer = Balancer("mgda", names(2), model, shared=choose(model))
    balancer(losses_of(model, batch())).backward()
    weights = [balancer.weights[t].item() for t in names(2)]
    assert weights[0] != pytest.approx(stepped("mgda")[1].weights["t0"].item(), rel=1e-3)
    last, first = list(model.encoder[2].parameters()), model.encoder[0].weight
    rows = [row_of(model, batch(), task, [*last, first]) for task in names(2)]
    gram = np.array(
        [[sum((a * b).sum().item() for a, b in zip(r[:2], q[:2], strict=True)) for q in rows] for r in rows]
    )
    assert weights == pytest.approx(
        list(strategies.get("mgda")(2).weights(gram, np.ones(2), np.arange(2))), rel=1e-4
    )
    assert first.grad.allclose(sum(w * r[2] for w, r in zip(weights, rows, strict=True)), atol=1e-6)


def test_gradnorm_measures_at_the_layer_used_last():
    class Backwards(nn.Module):
        """Registers its layers in the opposite order of their use."""

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 1), nn.Linear(4, 1)
            self.late = nn.Linear(4, 4)
            self.early = nn.Linear(5, 4)

        def forward(self, data):
            h = torch.tanh(self.late(torch.tanh(self.early(data[0]))))
            return [self.a(h).pow(2).mean(), (self.b(h) - 1).pow(2).mean()]

    model = Backwards()
    for given in (model, None):
        balancer = Balancer("gradnorm", names(2), given)
        balancer.backward(losses_of(model, batch()))
        row = row_of(model, batch(), "t0", [model.late.weight, model.late.bias])
        norm = math.sqrt(sum(r.pow(2).sum().item() for r in row))
        assert balancer.metrics()["norm/t0"].item() == pytest.approx(norm, rel=1e-5)


def test_gradnorm_takes_rows_of_one_layer_only(monkeypatch):
    from mtlweights.gradients import task_gradients

    sizes, plain = [], task_gradients.rows
    monkeypatch.setattr(
        task_gradients,
        "rows",
        lambda losses, params, *a, **k: sizes.append(len(params)) or plain(losses, params, *a, **k),
    )
    for heads in ("paper", "plain"):
        model = toy(3)
        balancer = Balancer("gradnorm", names(3), model, heads=heads)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
        for step in range(3):
            optimizer.zero_grad()
            expected = naive_step(clone(model), batch(seed=step), copy.deepcopy(balancer.strategy), heads)
            balancer(losses_of(model, batch(seed=step))).backward()
            assert_same(gradients_of(model), expected)
            optimizer.step()
        assert sizes[-3:] == [2, 2, 2]


def test_jacobian_strategy():
    class Halves(strategies.JacobianStrategy):
        """Half of each row's sum; weights for the heads on request."""

        def direction(self, jacobian, losses, present):
            return 0.5 * jacobian.sum(0), torch.full_like(losses, 0.5)

    for heads, factor in (("plain", 1.0), ("weighted", 0.5)):
        model, plain = toy(3), toy(3)
        sum(plain(batch())).backward()
        balancer = Balancer(Halves, names(3), model, heads=heads)
        balancer(losses_of(model, batch())).backward(torch.tensor(8.0))
        assert_allclose = torch.testing.assert_close
        assert_allclose(
            model.encoder[0].weight.grad, 8 * 0.5 * plain.encoder[0].weight.grad, rtol=1e-5, atol=1e-6
        )
        assert_allclose(
            model.heads[1].weight.grad, 8 * factor * plain.heads[1].weight.grad, rtol=1e-5, atol=1e-6
        )
        assert balancer.weights["t1"].item() == 0.5


def test_weights_for_trunk_and_heads_apart():
    class Pair(strategies.GramStrategy):
        def weights(self, gram, losses, present):
            return np.full(len(losses), 2.0), np.full(len(losses), 3.0)

    plain = toy()
    sum(plain(batch())).backward()
    for heads, factor in (("paper", 3), ("weighted", 2), ("plain", 1)):
        model = toy()
        Balancer(Pair, names(2), model, heads=heads).backward(losses_of(model, batch()))
        torch.testing.assert_close(model.encoder[0].weight.grad, 2 * plain.encoder[0].weight.grad)
        torch.testing.assert_close(model.heads[1].weight.grad, factor * plain.heads[1].weight.grad)


def test_a_step_on_held_weights_is_spoilt_by_a_loss_that_is_not_finite():
    model = toy()
    balancer = Balancer("mgda", names(2), model, every=4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for bad in (False, True):
        optimizer.zero_grad()
        losses = losses_of(model, batch())
        losses["t1"] = losses["t1"] + (float("inf") if bad else 0.0)
        balancer(losses).backward()
        assert bool(model.encoder[0].weight.grad.isfinite().all()) == (not bad)
        optimizer.step()
    assert int(balancer.strategy.step) == 1


def test_every_holds_the_weights_and_takes_one_pass_in_between():
    model = toy(3)
    balancer = Balancer("mgda", names(3), model, every=3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    seen = []
    for step in range(7):
        optimizer.zero_grad()
        data = batch(seed=step)
        reference = clone(model)
        balancer(losses_of(model, data)).backward()
        seen.append([w.item() for w in balancer.weights.values()])
        expected = clone(reference)
        sum(w * loss for w, loss in zip(seen[-1], expected(data), strict=True)).backward()
        plain = clone(reference)
        sum(plain(data)).backward()
        torch.testing.assert_close(model.encoder[0].weight.grad, expected.encoder[0].weight.grad)
        torch.testing.assert_close(model.heads[0].weight.grad, plain.heads[0].weight.grad)
        optimizer.step()
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]


def test_smoothing_mixes_in_the_last_weights():
    def run(smoothing):
        model = toy(3)
        balancer = Balancer("mgda", names(3), model, smoothing=smoothing)
        out = []
        for step in range(3):
            model.zero_grad()
            balancer.backward(losses_of(model, batch(seed=step)))
            out.append(np.array([w.item() for w in balancer.weights.values()]))
        return out

    raw, smooth = run(0.0), run(0.75)
    assert np.allclose(smooth[0], raw[0])
    assert np.allclose(smooth[1], 0.75 * raw[0] + 0.25 * raw[1], atol=1e-6)
    assert np.allclose(smooth[2], 0.75 * smooth[1] + 0.25 * raw[2], atol=1e-6)


def test_validation_rows_join_the_next_gramian():
    class Follow(strategies.GramStrategy):
        def lookahead(self, present):
            return None

        sizes: list = []  # noqa: RUF012

        def weights(self, gram, losses, present):
            self.sizes.append((gram.shape, len(losses)))
            self.cross = gram[:2, 2:]
            return np.ones(2)

    model = toy()
    balancer = Balancer(Follow, names(2), model)
    other = batch(seed=9)
    for data, size in ((batch(), 3), (batch(), 2)):
        if size == 3:
            balancer.validate(lambda: losses_of(model, other, only=(1,)))
        model.zero_grad()
        balancer(losses_of(model, data)).backward(torch.tensor(1024.0))
        assert balancer.strategy.sizes[-1] == ((size, size), size)
        if size == 3:
            params = list(model.encoder.parameters())
            train = [row_of(model, data, task, params) for task in names(2)]
            held = row_of(model, other, "t1", params)
            exact = [sum((a * b).sum().item() for a, b in zip(row, held, strict=True)) for row in train]
            assert balancer.strategy.cross[:, 0] == pytest.approx(exact, rel=1e-4)


def test_metrics_of_a_gradient_method():
    model, balancer = stepped("pcgrad", 3)
    metrics = balancer.metrics()
    params = list(model.encoder.parameters())
    rows = [torch.cat([g.flatten() for g in row_of(model, batch(), task, params)]) for task in names(3)]
    assert metrics["norm/t2"].item() == pytest.approx(rows[2].norm().item(), rel=1e-5)
    cosine = nn.functional.cosine_similarity(rows[1], rows[0], dim=0).item()
    assert metrics["cos/t1_t0"].item() == pytest.approx(cosine, abs=1e-5)
    assert set(metrics) == {f"{k}/t{i}" for k in ("loss", "weight", "norm") for i in range(3)} | {
        "cos/t1_t0", "cos/t2_t0", "cos/t2_t1"
    }  # fmt: skip
    assert all(isinstance(v, torch.Tensor) and not v.requires_grad for v in metrics.values())


def test_gramian_is_exact_over_millions_of_elements():
    from mtlweights.gradients import task_gradients

    g = torch.Generator().manual_seed(0)
    flat = torch.randn(3, 3_000_000, generator=g) * torch.tensor([[1e-3], [1.0], [1e3]]) + 0.01
    rows = [[r[:5], r[5:40_000].view(-1, 5), r[40_000:]] for r in flat]
    exact = (flat.double() @ flat.double().T).numpy()
    found = task_gradients.gramian(rows, [0, 1, 2])
    assert found.dtype == torch.float64
    found = found.numpy()
    size = np.sqrt(np.diag(exact))
    assert (np.abs(found - exact) / np.outer(size, size)).max() < 1e-11


@pytest.mark.parametrize("path", ["call", "backward"])
@pytest.mark.parametrize("name", ["equal", "uw", "mgda", "gradnorm", "graddrop"])
def test_what_waits_for_a_parameter_s_gradient_gets_it_once(name, path):
    """An optimizer that steps in the backward pass: once each, with the whole gradient, and counted."""
    ends = []
    for within in (True, False):
        model, calls = toy(3), []
        balancer = Balancer(name, names(3), model)
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizers = {id(p): torch.optim.SGD([p], lr=0.05) for p in trained}

        def step(param, calls=calls, optimizers=optimizers):
            calls.append(id(param))
            optimizers[id(param)].step()
            param.grad = None

        for param in trained if within else []:
            param.register_post_accumulate_grad_hook(step)
        for seed in range(3):
            backward(balancer, lambda m=model, s=seed: losses_of(m, batch(seed=s)), path=path)
            for param in [] if within else trained:
                optimizers[id(param)].step()
                param.grad = None
        state = balancer.state_dict()["strategy"]
        ends.append((dict(model.state_dict()), state))
        reached = [p for n, p in model.named_parameters() if p.requires_grad and "unused" not in n]
        if within:
            assert sorted(calls) == sorted(3 * [id(p) for p in reached])
    assert int(ends[0][1]["step"]) == 3
    for found, expected in zip(*ends, strict=True):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-7, equal_nan=True)
