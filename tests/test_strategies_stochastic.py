"""Known answers of the strategies on several batches, on validation losses, and of MGDA's preference."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.optimize import brentq
from torch import nn
from torch.func import functional_call

from mtlweights import Balancer, strategies
from mtlweights.strategies.gram.auto_lambda import AutoLambda
from mtlweights.strategies.solvers import min_norm, project_simplex
from tests.toys import batch, losses_of, naive_rows, names, toy

A = np.array([[1, 0], [-0.5, math.sqrt(3) / 2]])
B = np.array([[2.0, 0], [-1, 1]])
C = np.array([[1.0, 0], [0, 10]])
C2 = np.array([[1, 0], [5, 5 * math.sqrt(3)]])
MGDA_WEIGHTS = [(A, (0.5, 0.5)), (B, (0.4, 0.6)), (C, (100 / 101, 1 / 101)), (C2, (1, 0))]

three = pytest.mark.parametrize("name", ["modo", "sdmgrad"])


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def weigh(strategy, *jacobians, present=None):
    """The weights of the third batch [m], checked to be the only ones; one jacobian stands for three."""
    first = jacobians[0]
    stacked = np.concatenate(jacobians * 3 if len(jacobians) == 1 else jacobians)
    m = len(first)
    present = np.arange(m) if present is None else present
    trunk, heads = strategy.weights(stacked @ stacked.T, np.ones(m), present)
    assert trunk.shape == heads.shape == (3 * m,)
    assert (trunk[: 2 * m] == 0).all() and heads == pytest.approx(1 / 3, rel=1e-15)
    return trunk[2 * m :]


def flat(tensors):
    return np.concatenate([t.detach().flatten() for t in tensors])


def nearest(point, total=1.0):
    """The projection on the simplex by root finding on its threshold."""
    mean = point.mean() - total / len(point)
    threshold = brentq(lambda t: np.maximum(point - t, 0).sum() - total, mean - 1, point.max(), xtol=1e-15)
    return np.maximum(point - threshold, 0)


# the simplex


@pytest.mark.parametrize("m", [1, 2, 3, 40])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e6])
@pytest.mark.parametrize("total", [1.0, 0.3])
def test_projection_is_the_nearest_point_of_the_simplex(m, scale, total):
    for seed in range(5):
        point = np.random.default_rng(seed).normal(size=m) * scale
        before = point.copy()
        found = project_simplex(point, total)
        assert found == pytest.approx(nearest(point, total), abs=1e-15 + 1e-14 * scale)
        assert found.sum() == pytest.approx(total, rel=1e-14) and (found >= 0).all()
        assert (point == before).all()


def test_projection_of_points_at_the_edges():
    assert project_simplex(np.array([0.25, 0.75])).tolist() == [0.25, 0.75]
    assert project_simplex(np.array([3.0, 0.0, 1.0])).tolist() == [1, 0, 0]
    assert project_simplex(np.array([-7.0, -7.0])).tolist() == [0.5, 0.5]
    assert project_simplex(np.array([1e300, 1e300, -1e300])).tolist() == [0.5, 0.5, 0]
    assert project_simplex(np.array([1.0, 2.0]), 0.0).tolist() == [0, 0]


# MoDo


@pytest.mark.parametrize(("gamma", "expected"), [(0.1, (0.45, 0.55)), (1e-3, (0.4995, 0.5005))])
def test_modo_on_known_gradients(gamma, expected):
    strategy = make("modo", 2, gamma=gamma, rho=0.1)
    assert weigh(strategy, B) == pytest.approx(expected, rel=1e-12)
    assert strategy.share.tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("n_tasks", [2, 5])
def test_modo_pairs_the_first_two_batches(n_tasks):
    rng, share = np.random.default_rng(0), np.full(n_tasks, 1 / n_tasks)
    strategy = make("modo", n_tasks, gamma=0.02, rho=0.3)
    for _ in range(6):
        one, two, three = rng.normal(size=(3, n_tasks, 7))
        share = nearest(share - 0.02 * (one @ two.T @ share + 0.3 * share))
        assert weigh(strategy, one, two, three) == pytest.approx(share, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("jacobian", "expected"), MGDA_WEIGHTS)
def test_modo_of_constant_gradients_ends_at_mgda(jacobian, expected):
    strategy = make("modo", 2, gamma=0.2 / (jacobian**2).sum(), rho=0)
    for _ in range(1000):
        weights = weigh(strategy, jacobian)
    assert weights == pytest.approx(expected, abs=1e-9)


def test_modo_takes_the_scale_of_the_losses_for_a_step_size():
    rng = np.random.default_rng(1)
    plain, scaled = make("modo", 3, gamma=0.01, rho=0.2), make("modo", 3, gamma=0.01 / 49, rho=0.2 * 49)
    for _ in range(4):
        jacobians = rng.normal(size=(3, 3, 5))
        assert weigh(scaled, *(7 * jacobians)) == pytest.approx(weigh(plain, *jacobians), rel=1e-9)


@pytest.mark.parametrize("rho", [0.0, 1.0, 100.0])
def test_rho_pulls_towards_equal_weights(rho):
    """At the end ``(g_1 - g_2) . d + rho (w_1 - w_2) = 0``."""
    strategy = make("modo", 2, gamma=1 / (10 + 2 * rho), rho=rho)
    for _ in range(50):
        weights = weigh(strategy, B)
    assert weights[0] == pytest.approx((4 + rho) / (10 + 2 * rho), rel=1e-9)


# SDMGrad


@pytest.mark.parametrize("n_tasks", [2, 5])
def test_sdmgrad_is_projected_sgd_with_momentum_from_the_last_weights(n_tasks):
    rng, wanted = np.random.default_rng(3), 0.4 * np.arange(1, n_tasks + 1) / np.arange(n_tasks + 1).sum()
    options = {"regularisation": 0.4, "lr": 0.7, "momentum": 0.8, "iterations": 4}
    strategy = make("sdmgrad", n_tasks, preference=list(range(1, n_tasks + 1)), **options)
    w = np.full(n_tasks, 1 / n_tasks)
    for _ in range(5):
        one, two, three = rng.normal(size=(3, n_tasks, 6))
        norm = np.linalg.norm(np.concatenate([one, two]), axis=1).mean()
        velocity = 0
        for _ in range(4):
            velocity = 0.8 * velocity + one @ two.T @ (w + wanted) / norm**2
            w = nearest(w - 0.7 * velocity)
        assert weigh(strategy, one, two, three) == pytest.approx((w + wanted) / 1.4, rel=1e-9)


@pytest.mark.parametrize(("jacobian", "expected"), MGDA_WEIGHTS)
def test_sdmgrad_without_regularisation_is_mgda(jacobian, expected):
    assert weigh(make("sdmgrad", 2, regularisation=0, iterations=400), jacobian) == pytest.approx(
        expected, abs=1e-9
    )


@pytest.mark.parametrize("regularisation", [0.0, 0.3])
@pytest.mark.parametrize("n_tasks", [3, 10])
def test_sdmgrad_at_its_defaults_converges_where_the_step_size_of_the_authors_does_not(
    n_tasks, regularisation
):
    """The objective over its least value, found as the shortest vector of the shifted gradients."""
    ratios = {0.3: [], 10.0: []}
    for seed in range(10):
        jacobian = np.random.default_rng(seed).normal(size=(n_tasks, 30))
        shifted = jacobian + regularisation * jacobian.mean(0)  # as w sums to 1
        least = min_norm(shifted @ shifted.T) @ shifted
        for lr, ratio in ratios.items():
            weights = weigh(make("sdmgrad", n_tasks, regularisation=regularisation, lr=lr), jacobian)
            d = (1 + regularisation) * weights @ jacobian
            ratio.append(d @ d / (least @ least))
    assert np.max(ratios[0.3]) < 1.001
    assert np.mean(ratios[10.0]) > (2 if n_tasks == 3 else 5)


@pytest.mark.parametrize(("up", "down"), [(7, 5), (6, 5), (5, 5), (30, 30)])
def test_sdmgrad_at_its_defaults_converges_on_many_correlated_tasks(up, down):
    """Gradients +1 and -1: at a step size of 0.3 w jumps for ever, at |d| of 0.4 to 1; d should be 0."""
    jacobian = np.repeat([1.0, -1.0], [up, down])[:, None]
    strategy, fixed = (
        make("sdmgrad", up + down, regularisation=0),
        make("sdmgrad", up + down, regularisation=0, lr=0.3),
    )
    for each in (strategy, fixed):
        each.share += torch.tensor(jacobian[:, 0]) * 1e-3  # off the solution
        for _ in range(20):
            weights = weigh(each, jacobian)
        length = abs(weights @ jacobian)[0]
        assert length < 1e-9 if each is strategy else length > 0.1


def test_sdmgrad_uses_a_step_size_that_is_given():
    jacobian = np.random.default_rng(0).normal(size=(12, 1))
    free, fixed = (make("sdmgrad", 12, lr=lr, iterations=1) for lr in (None, 0.3))
    norm = np.abs(jacobian).mean()
    w = np.full(12, 1 / 12)
    moved = {each: weigh(each, jacobian) * 1.3 - 0.3 / 12 for each in (free, fixed)}
    slope = jacobian @ jacobian.T @ (1.3 * w) / norm**2
    centred = (jacobian - jacobian.mean()) / norm
    bound = 1.5 / (centred.T @ centred).item()  # of one singular value
    assert moved[fixed] == pytest.approx(nearest(w - 0.3 * slope), rel=1e-9)
    assert moved[free] == pytest.approx(nearest(w - bound * slope), rel=1e-9)
    assert bound < 0.2


@pytest.mark.parametrize(("preference", "expected"), [(None, (1 / 3, 1 / 3, 1 / 3)), ([1, 2, 5], (1, 2, 5))])
def test_large_regularisation_is_the_preferred_gradient(preference, expected):
    jacobian = np.random.default_rng(0).normal(size=(3, 4))
    weights = weigh(make("sdmgrad", 3, regularisation=1e9, preference=preference), jacobian)
    assert weights == pytest.approx(np.array(expected) / sum(expected), rel=1e-8)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_sdmgrad_follows_the_scale_of_the_losses(scale):
    strategy, scaled = make("sdmgrad", 4), make("sdmgrad", 4)
    for seed in range(4):
        jacobians = np.random.default_rng(seed).normal(size=(3, 4, 6))
        assert weigh(scaled, *(scale * jacobians)) == pytest.approx(weigh(strategy, *jacobians), rel=1e-9)


# both


@three
def test_absent_tasks_keep_their_share(name):
    strategy, pair = make(name, 3), make(name, 2)
    weigh(strategy, np.diag([1.0, 2, 3]))
    before = strategy.share.numpy().copy()
    pair.share.copy_(torch.from_numpy(before[[2, 0]] / before[[2, 0]].sum()))
    weights = weigh(strategy, B, present=np.array([2, 0]))
    assert weights == pytest.approx(weigh(pair, B), rel=1e-12) and weights.sum() == pytest.approx(1)
    after = strategy.share.numpy()
    assert after[1] == before[1]
    assert after[[2, 0]] == pytest.approx(before[[2, 0]].sum() * pair.share.numpy(), rel=1e-12)
    assert not np.allclose(after, before)


@three
def test_tasks_without_any_share_start_from_equal_ones(name):
    strategy, fresh = make(name, 3), make(name, 2)
    strategy.share.copy_(torch.tensor([0.0, 1, 0]))
    assert weigh(strategy, B, present=np.array([0, 2])) == pytest.approx(weigh(fresh, B), rel=1e-15)
    assert strategy.share.tolist() == [0, 1, 0]


@three
def test_the_third_batch_is_weighed_not_asked(name):
    rng = np.random.default_rng(0)
    one, two, three = rng.normal(size=(3, 3, 5))
    assert (weigh(make(name, 3), one, two, three) == weigh(make(name, 3), one, two, 9 * three)).all()
    assert (weigh(make(name, 3), one, two, three) != weigh(make(name, 3), one, three, two)).any()


def stacks(n_tasks):
    """Gradients of three batches, of every kind of degeneracy."""
    rng = np.random.default_rng(0)
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), [1.0, 2.0])
    zero_row = rng.normal(size=(n_tasks, 3))
    zero_row[-1] = 0
    yield [np.zeros((n_tasks, 2))] * 3
    yield [rank_one] * 3
    yield [rank_one * np.where(np.arange(n_tasks) % 2, -1.0, 1.0)[:, None]] * 3
    yield [zero_row] * 3
    yield [rank_one, -rank_one, rank_one]
    yield [rank_one, np.zeros((n_tasks, 2)), rank_one]
    yield list(rng.normal(size=(3, n_tasks, 5)))


@three
@pytest.mark.parametrize("n_tasks", [1, 2, 3, 10, 40])
def test_weights_stay_on_the_simplex(name, n_tasks):
    strategy = make(name, n_tasks)
    for jacobians in list(stacks(n_tasks)) * 3:
        with np.errstate(all="raise"):
            weights = weigh(strategy, *jacobians)
        assert (weights >= 0).all() and weights.sum() == pytest.approx(1, rel=1e-12)
        assert strategy.share.sum().item() == pytest.approx(1, rel=1e-12) and (strategy.share >= 0).all()


@three
def test_a_resumed_run_goes_on_bit_for_bit(name):
    strategy, rng = make(name, 4), np.random.default_rng(0)
    for _ in range(5):
        weigh(strategy, *rng.normal(size=(3, 4, 5)))
    resumed = make(name, 4)
    resumed.load_state_dict(copy.deepcopy(strategy.state_dict()), strict=True)
    for _ in range(5):
        jacobians = rng.normal(size=(3, 4, 5))
        assert (weigh(resumed, *jacobians) == weigh(strategy, *jacobians)).all()


@three
def test_a_step_of_three_batches_in_a_training_loop(name):
    """Against the gradients of each batch, one at a time, and the strategy on their Gramian."""
    model, twin = toy(3), make(name, 3)
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    encoder = list(model.encoder.parameters())
    heads = [list(head.parameters()) for head in model.heads]
    for step in range(4):
        data = [batch(seed=3 * step + k) for k in range(3)]
        rows = [naive_rows(losses_of(model, d).values(), encoder) for d in data]
        jacobians = [np.array([flat(row) for row in of_batch]) for of_batch in rows]
        weights = weigh(twin, *jacobians)
        optimizer.zero_grad()
        wanted = [
            sum(torch.autograd.grad(losses_of(model, d)[f"t{i}"], heads[i])[0] for d in data) / 3
            for i in range(3)
        ]
        for d in data:
            balancer.backward(losses_of(model, d), gradient=torch.tensor(1 / 3))  # as under any accumulation
        found = flat([p.grad for p in encoder])
        assert found == pytest.approx(weights @ jacobians[2], rel=1e-4, abs=1e-6)
        for i in range(3):
            torch.testing.assert_close(heads[i][0].grad, wanted[i])
        assert [balancer.weights[n].item() for n in names(3)] == pytest.approx(weights, rel=1e-5)
        optimizer.step()


# Auto-lambda


def quadratics(n_losses, n_params, seed):
    """Losses (x - a) H (x - a) / 2 with random a and H > 0, as functions of x."""
    rng = np.random.default_rng(seed)
    roots, centres = rng.normal(size=(n_losses, n_params, n_params)), rng.normal(size=(n_losses, n_params))
    tensors = [(torch.from_numpy(r @ r.T), torch.from_numpy(a)) for r, a in zip(roots, centres, strict=True)]
    return [lambda x, h=h, a=a: (x - a) @ h @ (x - a) / 2 for h, a in tensors]


def gradient(function, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0].numpy()


def give(strategy, training, validation, present=None):
    """One call of the strategy, as the Balancer makes it: weights [m], with the gradient left on ``w``."""
    rows = np.concatenate([training, validation]) if len(validation) else training
    present = np.arange(strategy.n_tasks) if present is None else present
    return strategy.weights(rows @ rows.T, np.ones(len(rows)), present)


def test_auto_lambda_in_one_dimension_by_hand():
    """l_1 = (x - 1)^2 / 2, l_2 = (x + 1)^2 / 2, validation (x - 2)^2 / 2, at x = 1: g = (0, 2)."""
    strategy = make("auto_lambda", 2, eta=0.5)
    assert strategy.lookahead(np.arange(2)).tolist() == [0.05, 0.05]
    ahead = 1 - 0.05 * 0 - 0.05 * 2
    training, validation = np.array([[0.0], [2.0]]), np.array([[ahead - 2]])
    assert give(strategy, training, validation).tolist() == [0.1, 0.1]
    assert strategy.w.grad.tolist() == pytest.approx([0, 1.1])  # -0.5 * 2 * -1.1


@pytest.mark.parametrize("eta", [1e-3, 0.1, 2.0])
@pytest.mark.parametrize("n_validation", [1, 3])
def test_hypergradient_is_that_of_the_unrolled_step(eta, n_validation):
    tasks, validation = quadratics(4, 5, seed=0), quadratics(n_validation, 5, seed=1)
    strategy, x = make("auto_lambda", 4, eta=eta), torch.zeros(5, dtype=torch.float64, requires_grad=True)
    with torch.no_grad():
        strategy.w.copy_(torch.tensor([0.3, -0.2, 0.05, 0.1], dtype=torch.float64))
    w = strategy.w.detach().clone().requires_grad_()
    step = torch.autograd.grad(sum(w[i] * task(x) for i, task in enumerate(tasks)), x, create_graph=True)[0]
    (exact,) = torch.autograd.grad(sum(loss(x - eta * step) for loss in validation), w)
    rows = np.array([gradient(task, x) for task in tasks])
    ahead = x - torch.from_numpy(strategy.lookahead(np.arange(4)) @ rows)
    weights = give(strategy, rows, np.array([gradient(loss, ahead) for loss in validation]))
    assert weights.tolist() == [0.3, -0.2, 0.05, 0.1]
    assert strategy.w.grad.numpy() == pytest.approx(exact.numpy(), rel=1e-9)


def test_first_order_form_takes_the_gradients_where_the_model_is():
    strategy = make("auto_lambda", 3, eta=0.1, bilevel=False)
    assert strategy.lookahead(np.arange(3)) is None
    assert strategy.lookahead(np.array([0, 2])) is None
    rng = np.random.default_rng(0)
    training, validation = rng.normal(size=(3, 4)), rng.normal(size=(2, 4))
    give(strategy, training, validation)
    assert strategy.w.grad.numpy() == pytest.approx(-0.1 * training @ validation.sum(0))


def test_auto_lambda_without_validation_stays():
    strategy = make("auto_lambda", 3, init=0.7)
    assert give(strategy, np.eye(3), []).tolist() == [0.7] * 3
    assert strategy.w.grad.tolist() == [0] * 3


def test_auto_lambda_of_absent_tasks():
    strategy = make("auto_lambda", 4, eta=0.2)
    with torch.no_grad():
        strategy.w.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64))
    present = np.array([3, 1])
    assert strategy.lookahead(present).tolist() == pytest.approx([0.08, 0.04])
    assert give(strategy, np.array([[1.0, 0], [0, 1]]), np.array([[3.0, 5]]), present).tolist() == [0.4, 0.2]
    assert strategy.w.grad.tolist() == pytest.approx([0, -1.0, 0, -0.6])


@pytest.mark.parametrize("n_tasks", [1, 2, 10, 40])
def test_auto_lambda_of_degenerate_gradients(n_tasks):
    for bilevel in (True, False):
        strategy = make("auto_lambda", n_tasks, bilevel=bilevel)
        for jacobian, validation, _ in stacks(n_tasks):
            with np.errstate(all="raise"):
                weights = give(strategy, jacobian, validation)
            assert weights.tolist() == [0.1] * n_tasks and torch.isfinite(strategy.w.grad).all()


class Recorder(AutoLambda):
    """Keeps the gradient that the Balancer takes away."""

    def weights(self, gram, losses, present):
        out = super().weights(gram, losses, present)
        self.seen = self.w.grad.clone()
        return out


@pytest.mark.parametrize("bilevel", [True, False])
def test_auto_lambda_in_a_training_loop(bilevel):
    """Every hypergradient against autograd through the virtual step of the whole model, heads included."""
    model = toy(3, dtype=torch.float64)
    balancer = Balancer(Recorder, names(3), model, eta=0.3, bilevel=bilevel, weight_lr=0.01)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    balancer.attach(optimizer)
    for step in range(4):
        data, held_out = batch(seed=step, dtype=torch.float64), batch(seed=100 + step, dtype=torch.float64)
        parameters = {n: p for n, p in model.named_parameters() if p.requires_grad and "unused" not in n}
        w = balancer.strategy.w.detach().clone().requires_grad_()
        loss = sum(w[i] * value for i, value in enumerate(model(data)))
        step_of = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
        eta = 0.3 if bilevel else 1e-9
        ahead = {n: p - eta * g for (n, p), g in zip(parameters.items(), step_of, strict=True)}
        held = functional_call(model, ahead, (held_out,))
        exact = 0.3 / eta * torch.autograd.grad(held[0] + held[2], w)[0]
        plain = torch.autograd.grad(loss, list(parameters.values()))
        optimizer.zero_grad()
        balancer.validate(lambda held_out=held_out: losses_of(model, held_out, only=(0, 2)))
        balancer.backward(losses_of(model, data))
        assert balancer.strategy.seen.numpy() == pytest.approx(exact.numpy(), rel=1e-5)
        for parameter, expected in zip(parameters.values(), plain, strict=True):
            torch.testing.assert_close(parameter.grad, expected)
        assert (balancer.strategy.w == w).all()
        optimizer.step()
        if step == 0:  # Adam's first step follows the sign
            assert ((balancer.strategy.w < w) == (exact > 0)).all()


class Regressors(nn.Module):
    """A shared layer and a head per task; the losses of ``only`` some tasks on x and targets [T, n]."""

    def __init__(self, n_tasks):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(6, 16), nn.Tanh())
        self.heads = nn.ModuleList([nn.Linear(16, 1) for _ in range(n_tasks)])

    def forward(self, x, targets, only):
        hidden = self.encoder(x)
        return {f"t{i}": (self.heads[i](hidden)[:, 0] - targets[i]).pow(2).mean() for i in only}


def test_auto_lambda_finds_who_helps_the_primary_task():
    """Task 0 is primary, task 1 has the same target, task 2 targets of pure noise."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(6, generator=generator)

    def draw():
        x = torch.randn(64, 6, generator=generator)
        return x, [torch.tanh(x @ truth), torch.tanh(x @ truth), 2 * torch.randn(64, generator=generator)]

    torch.manual_seed(0)
    model = Regressors(3)
    balancer = Balancer("auto_lambda", names(3), model, weight_lr=3e-3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(60):
        optimizer.zero_grad()
        balancer.validate(lambda: model(*draw(), only=[0]))
        balancer.backward(model(*draw(), only=range(3)))
        optimizer.step()
    primary, same, noise = (weight.item() for weight in balancer.weights.values())
    assert primary > 0.15 and same > 0.15 and noise < 0.1


# MGDA with a preference


@pytest.mark.parametrize("seed", range(10))
def test_preference_of_two_tasks_in_closed_form(seed):
    rng = np.random.default_rng(seed)
    jacobian, p = rng.normal(size=(2, 3)), rng.uniform(0.2, 3, 2)
    first, second = p[:, None] * jacobian
    a = np.clip((second - first) @ second / ((first - second) ** 2).sum(), 0, 1)
    weights = make("mgda", 2, preference=p).weights(jacobian @ jacobian.T, np.ones(2), np.arange(2))
    assert weights == pytest.approx([a * p[0], (1 - a) * p[1]], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n_tasks", [3, 8])
def test_preference_evens_out_the_rates_of_the_scaled_losses(n_tasks):
    for seed in range(10):
        rng = np.random.default_rng(seed)
        jacobian, p = rng.normal(size=(n_tasks, 9)), rng.uniform(0.2, 3, n_tasks)
        weights = make("mgda", n_tasks, preference=p.tolist()).weights(
            jacobian @ jacobian.T, np.ones(n_tasks), np.arange(n_tasks)
        )
        d = weights @ jacobian
        rates, active = p * (jacobian @ d), weights > 0
        assert (weights / p).sum() == pytest.approx(1, rel=1e-12)
        assert rates[active] == pytest.approx(d @ d, rel=1e-9) and (rates >= d @ d * (1 - 1e-9)).all()


def test_equal_preferences_are_plain_mgda():
    for seed in range(5):
        jacobian, losses = np.random.default_rng(seed).normal(size=(4, 6)), np.arange(1.0, 5)
        gram = jacobian @ jacobian.T
        for kind in ("none", "l2", "loss", "loss+"):
            plain = make("mgda", 4, normalisation=kind).weights(gram, losses, np.arange(4))
            ones = make("mgda", 4, normalisation=kind, preference=[1, 1, 1, 1]).weights(
                gram, losses, np.arange(4)
            )
            assert (plain == ones).all() and plain.sum() == pytest.approx(1)
            threes = make("mgda", 4, normalisation=kind, preference=[3.0] * 4).weights(
                gram, losses, np.arange(4)
            )
            assert threes == pytest.approx(3 * plain, rel=1e-9, abs=1e-12)


def test_preference_with_normalised_gradients_and_absent_tasks():
    strategy = make("mgda", 3, normalisation="l2", preference=[2, 7, 1])
    # Orthogonal and of norms 2 and 3: on p_i u_i, a = (1, 4) / 5.
    weights = strategy.weights(np.diag([4.0, 9.0]), np.ones(2), np.array([0, 2]))
    assert weights == pytest.approx([2 / 5, 4 / 5])
    assert strategy.weights(np.diag([9.0, 4.0]), np.ones(2), np.array([2, 0])) == pytest.approx(
        [4 / 5, 2 / 5]
    )


# what is refused


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("modo", {"gamma": 0}, "gamma should be a number above 0, found 0"),
        ("modo", {"rho": -1}, "rho should be a number of at least 0, found -1"),
        ("sdmgrad", {"regularisation": math.inf}, "regularisation should be a number of at least 0"),
        ("sdmgrad", {"lr": 0}, "lr should be a number above 0"),
        ("sdmgrad", {"momentum": 1}, "momentum should be at least 0 and below 1, found 1"),
        ("sdmgrad", {"momentum": "high"}, "momentum should be at least 0 and below 1, found 'high'"),
        ("sdmgrad", {"iterations": 0}, "iterations should be a whole number of at least 1, found 0"),
        ("sdmgrad", {"iterations": 2.0}, r"iterations should be a whole number of at least 1, found 2\.0"),
        ("sdmgrad", {"preference": [1, 0, 1]}, "preference should hold numbers above 0"),
        ("auto_lambda", {"init": 0}, "init should be a number above 0"),
        ("auto_lambda", {"eta": math.nan}, "eta should be a number above 0, found nan"),
        ("mgda", {"preference": [1, 0, 1]}, r"preference should hold numbers above 0, found \[1, 0, 1\]"),
        ("mgda", {"preference": [1, 2]}, "preference should have 3 numbers, one per task"),
        ("epo", {"preference": [0, 1, 1]}, "preference should hold numbers above 0"),
        ("epo", {"preference": "abc"}, "preference should be numbers, found 'abc'"),
        ("stch", {"preference": 2.0}, r"preference should have 3 numbers, one per task, found 2\.0"),
        ("aligned_mtl", {"preference": [1, math.nan, 1]}, "preference should hold finite numbers"),
        ("aligned_mtl", {"preference": [0, 0, 0]}, "at least 0, one of them above 0"),
        ("krum", {"n_selected": 0}, "n_selected should be a whole number of at least 1, found 0"),
        ("krum", {"n_byzantine": 1.5}, "n_byzantine should be a whole number of at least 0, found 1.5"),
    ],
)
def test_bad_hyperparameters_are_refused(name, hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        make(name, 3, **hyperparameters)


def test_preferences_keep_their_defaults_and_are_copied():
    for name in ("stch", "pbi", "cosmos"):
        preference = make(name, 4).preference
        assert preference.tolist() == [0.25] * 4 and preference.dtype == torch.float32
    given = np.array([1.0, 2, 3])
    for name in ("epo", "aligned_mtl", "mgda", "sdmgrad"):
        assert make(name, 4).preference.tolist() == [1.0] * 4
        strategy = make(name, 3, preference=given)
        given[0] += 1
        assert strategy.preference.tolist() == [given[0] - 1, 2, 3]
        assert strategy.preference.dtype == torch.float64
