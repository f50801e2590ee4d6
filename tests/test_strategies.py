"""What every registered strategy keeps to, whatever its mathematics."""

import inspect

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from mtlweights import strategies
from mtlweights.strategies import LossStrategy, Strategy

every = pytest.mark.parametrize("name", strategies.names())
NORMALISATIONS = [("mgda", {"normalisation": kind}) for kind in ("l2", "loss", "loss+")]
configured = pytest.mark.parametrize(
    ("name", "hyperparameters"), [(name, {}) for name in strategies.names()] + NORMALISATIONS
)


def make(name, n_tasks, **hyperparameters):
    return strategies.get(name)(n_tasks, **hyperparameters)


def weigh(strategy, jacobian, losses, present=None):
    """One call of the strategy's method: its weights [m], and gradients on its parameters."""
    strategy.zero_grad()
    if isinstance(strategy, LossStrategy):
        losses = torch.tensor(losses, requires_grad=True)
        strategy.combine(losses, present).backward()
        return losses.grad.numpy()
    weights = strategy.weights(jacobian @ jacobian.T, losses, present)
    return weights[0] if isinstance(weights, tuple) else weights


def play(strategy, steps):
    """Training from the strategy's point of view: weights [n, T] of the given steps."""
    n_tasks, record = strategy.n_tasks, []
    for step in steps:
        rng = np.random.default_rng(step)
        losses = rng.uniform(0.1, 3, n_tasks)
        record.append(weigh(strategy, rng.normal(size=(n_tasks, 4)), losses))
        update(strategy, np.arange(n_tasks))
        if step % 3 == 2:
            unseen = rng.random(n_tasks) < 0.5
            strategy.end_epoch(np.where(unseen, np.nan, losses), np.where(unseen, np.nan, losses / 3))
    return np.array(record)


def update(strategy, present):
    """What the Balancer does between two steps, with plain gradient descent."""
    moved = torch.zeros(strategy.n_tasks, dtype=torch.bool)
    moved[present] = True
    with torch.no_grad():
        for parameter in strategy.parameters():
            parameter -= 0.025 * parameter.grad
    strategy.project(moved)
    strategy.step += 1


@every
def test_class_says_what_it_is(name):
    cls = strategies.get(name)
    assert inspect.getdoc(cls).splitlines()[0].endswith(".")
    assert "https://" in cls.paper
    assert cls.family
    arguments = inspect.signature(cls).parameters
    assert all(p.kind == p.KEYWORD_ONLY for p in list(arguments.values())[1:])
    assert set(cls.space) <= set(arguments)
    assert all(callable(getattr(Strategy, hook)) for hook in cls.needs)


@configured
@pytest.mark.parametrize("n_tasks", [1, 2, 3, 8])
def test_weights_are_finite_and_signed_as_declared(name, hyperparameters, n_tasks):
    strategy = make(name, n_tasks, **hyperparameters)
    weights = play(strategy, range(12))
    assert weights.shape == (12, n_tasks)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all() or strategy.signed_weights


@every
def test_one_task_is_weighted_alone(name):
    degree = strategies.get(name).scale_degree
    weight = weigh(make(name, 1), np.full((1, 4), 0.2), np.array([0.4]))
    expected = 1.5 if name == "cagrad" else 0.4 ** ((degree or 0) - 1)  # its ball: (1 + c) g
    assert weight > 0 if degree is None else weight == pytest.approx(expected)


def degenerate(n_tasks):
    rank_one = np.outer(np.arange(1.0, n_tasks + 1), [1.0, 2.0])
    opposed = rank_one * np.where(np.arange(n_tasks) % 2, -1.0, 1.0)[:, None]
    zero_row = np.random.default_rng(0).normal(size=(n_tasks, 3))
    zero_row[-1] = 0
    return {"zero": np.zeros((n_tasks, 2)), "rank one": rank_one, "opposed": opposed, "zero row": zero_row}


@configured
@pytest.mark.parametrize("kind", degenerate(2))
@pytest.mark.parametrize("n_tasks", [2, 3, 8])
def test_degenerate_gradients_give_finite_weights_and_state(name, hyperparameters, kind, n_tasks):
    strategy = make(name, n_tasks, **hyperparameters)
    for losses in (np.ones(n_tasks), np.zeros(n_tasks)):
        with np.errstate(all="raise"):
            weights = weigh(strategy, degenerate(n_tasks)[kind], losses)
        assert np.isfinite(weights).all()
        assert all(torch.isfinite(p.grad).all() for p in strategy.parameters())


@configured
def test_absent_task_is_left_alone(name, hyperparameters):
    strategy = make(name, 3, **hyperparameters)
    play(strategy, range(8))
    before = {key: value.clone() for key, value in strategy.state_dict().items()}

    def unmoved(key):
        return np.array_equal(strategy.state_dict()[key][1], before[key][1], equal_nan=True)

    present = np.array([0, 2])
    weights = weigh(strategy, np.random.default_rng(0).normal(size=(2, 4)), np.array([0.3, 0.7]), present)
    assert weights.shape == (2,)
    assert np.isfinite(weights).all()
    update(strategy, present)
    rows = {key for key, value in before.items() if value.shape[:1] == (3,)}
    assert all(unmoved(key) for key in rows)
    # Nor does a hook without news of it move what is known of it; only its share of the sum may.
    nan = float("nan")
    strategy.end_epoch(np.array([0.2, nan, 0.4]), np.array([0.2, nan, 0.4]))
    assert all(unmoved(key) for key in rows - {"weight"})


@configured
def test_order_of_present_tasks_is_followed(name, hyperparameters):
    """Rows in another order give the same weights in that order (T = 2: no random orders)."""
    rng = np.random.default_rng(0)
    jacobian, losses = rng.normal(size=(2, 4)), rng.uniform(0.5, 2, 2)
    strategy, swapped = (make(name, 3, **hyperparameters) for _ in range(2))
    play(strategy, range(8)), play(swapped, range(8))
    weights = weigh(strategy, jacobian, losses, np.array([0, 2]))
    assert weigh(swapped, jacobian[::-1], losses[::-1].copy(), np.array([2, 0])) == pytest.approx(
        weights[::-1], rel=1e-6
    )


@configured
def test_scale_of_the_losses(name, hyperparameters):
    degree = strategies.get(name).scale_degree
    if degree is None:
        return
    rng = np.random.default_rng(0)
    jacobian, losses = rng.normal(size=(3, 5)), rng.uniform(0.5, 2, 3)
    weights = weigh(make(name, 3, **hyperparameters), jacobian, losses)
    for scale in (1e-6, 1e-3, 1e3, 1e6):
        scaled = weigh(make(name, 3, **hyperparameters), scale * jacobian, scale * losses)
        assert scaled == pytest.approx(weights * scale ** (degree - 1), rel=1e-9)


@configured
def test_resumed_run_is_bit_identical(name, hyperparameters, tmp_path):
    strategy = make(name, 4, **hyperparameters)
    play(strategy, range(16))
    torch.save(strategy.state_dict(), tmp_path / "state.pt")
    expected = play(strategy, range(16, 40))
    resumed = make(name, 4, **hyperparameters)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True), strict=True)
    assert (play(resumed, range(16, 40)) == expected).all()


@configured
def test_inputs_are_not_changed(name, hyperparameters):
    strategy = make(name, 3, **hyperparameters)
    rng = np.random.default_rng(0)
    losses, present = rng.uniform(size=3), np.array([2, 0, 1])
    if isinstance(strategy, LossStrategy):
        tensor = torch.tensor(losses, requires_grad=True)
        before = [tensor.detach().clone().numpy(), present.copy()]
        strategy.combine(tensor, present)
        inputs = [tensor.detach().numpy(), present]
    else:
        jacobian = rng.normal(size=(3, 2))
        gram = jacobian @ jacobian.T
        inputs = [gram, losses, present]
        before = [value.copy() for value in inputs]
        strategy.weights(gram, losses, present)
    assert all((a == b).all() for a, b in zip(inputs, before, strict=True))
    mean_losses, scores = rng.uniform(size=3), rng.uniform(size=3)
    before = mean_losses.copy(), scores.copy()
    strategy.end_epoch(mean_losses, scores)
    weigh(strategy, rng.normal(size=(3, 2)), losses)
    assert (mean_losses == before[0]).all() and (scores == before[1]).all()


@pytest.mark.parametrize(
    "name", [n for n in strategies.names() if issubclass(strategies.get(n), LossStrategy)]
)
@pytest.mark.parametrize("present", [None, np.array([0, 2])])
def test_combine_reads_nothing_back_to_the_host(name, present):
    """Fake tensors have no values: any host read or branch on one raises."""
    with FakeTensorMode():
        strategy = make(name, 3)
        losses = torch.rand(3 if present is None else 2, requires_grad=True)
        value = strategy.combine(losses, present)
        gradients = torch.autograd.grad(value, [losses, *strategy.parameters()])
    assert value.shape == ()
    assert gradients[0].shape == losses.shape


@pytest.mark.parametrize(
    ("name", "hyperparameters", "message"),
    [
        ("uw", {"forms": "gaussian"}, "'regression' or 'classification', found 'gaussian'"),
        ("uw", {"forms": ["regression"]}, "forms should have 2 entries, one per task, found 1"),
        ("uw", {"init": float("nan")}, "init should be a finite number"),
        ("dwa", {"temperature": 0}, "temperature should be a number above 0, found 0"),
        ("gradnorm", {"alpha": -1}, "alpha should be a number of at least 0, found -1"),
        ("mgda", {"normalisation": "l1"}, "normalisation should be one of none, l2, loss, loss+"),
        ("validation", {"gamma": 0}, "gamma should be a number above 0"),
        ("validation", {"margin": float("inf")}, "margin should be a number above 0"),
    ],
)
def test_bad_hyperparameters_are_refused(name, hyperparameters, message):
    with pytest.raises(ValueError, match=message.replace("+", r"\+")):
        make(name, 2, **hyperparameters)


@every
def test_bad_number_of_tasks_is_refused(name):
    with pytest.raises(ValueError, match="n_tasks should be an integer of at least 1, found 0"):
        make(name, 0)
