"""Auto-lambda: the hypergradient, by hand, by autograd, in a training loop."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from mtlweights import Balancer
from mtlweights.strategies.gram.auto_lambda import AutoLambda
from tests.strategies.gram.helpers import stacks
from tests.strategies.helpers import make
from tests.toys import batch, losses_of, names, toy


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


def quadratics(n_losses, n_params, seed):
    """Losses (x - a) H (x - a) / 2 with random a and H > 0, as functions of x."""
    rng = np.random.default_rng(seed)
    roots, centres = rng.normal(size=(n_losses, n_params, n_params)), rng.normal(size=(n_losses, n_params))
    tensors = [(torch.from_numpy(r @ r.T), torch.from_numpy(a)) for r, a in zip(roots, centres, strict=True)]
    return [lambda x, h=h, a=a: (x - a) @ h @ (x - a) / 2 for h, a in tensors]


def gradient(function, x):
    x = x.detach().requires_grad_()
    return torch.autograd.grad(function(x), x)[0].numpy()


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
