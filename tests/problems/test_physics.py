"""Equations: their reference solutions fulfil them, and training on residuals finds them."""

import numpy as np
import pytest
import torch

from mtlweights import Balancer, problems, train
from mtlweights.problems.data.equations import Burgers, Helmholtz
from mtlweights.problems.data.physics import Field

EQUATIONS = {"burgers": Burgers(), "helmholtz": Helmholtz()}


def exact(points):
    """Helmholtz' solution in torch."""
    return torch.sin(torch.pi * points[:, 0]) * torch.sin(4 * torch.pi * points[:, 1])


def inside(equation, n, seed=0):
    low = np.array([-1.0, equation.low])
    return low + np.random.default_rng(seed).random((n, 2)) * (1 - low)


@pytest.mark.parametrize("term", Helmholtz.terms)
def test_the_solution_of_helmholtz_has_no_residual(term):
    points = torch.from_numpy(inside(EQUATIONS["helmholtz"], 50))
    residual = EQUATIONS["helmholtz"].residual(term, exact, points)
    assert residual.abs().max() < 1e-10
    assert EQUATIONS["helmholtz"].solution(points.numpy()) == pytest.approx(exact(points).numpy())


def test_the_solution_of_burgers_fulfils_the_equation_and_its_conditions():
    equation = EQUATIONS["burgers"]
    points = inside(equation, 200)
    points = points[(np.abs(points[:, 0]) > 0.1) & (points[:, 1] > 0.01)]  # away from the shock
    h, u = 1e-4, equation.solution
    x, t = h * np.eye(2)
    u_x = (u(points + x) - u(points - x)) / (2 * h)
    u_xx = (u(points + x) - 2 * u(points) + u(points - x)) / h**2
    u_t = (u(points + t) - u(points - t)) / (2 * h)
    assert np.abs(u_t + u(points) * u_x - equation.nu * u_xx).max() < 1e-5
    line = np.linspace(0, 1, 20)
    assert u(np.stack([np.ones(20), line], 1)) == pytest.approx(np.zeros(20), abs=1e-9)
    assert u(np.stack([line, np.zeros(20)], 1)) == pytest.approx(-np.sin(np.pi * line), abs=1e-12)


@pytest.mark.parametrize("term", Burgers.terms)
def test_residuals_of_burgers_are_those_of_a_field_by_hand(term):
    """u = x^2 t: u_t = x^2, u_x = 2 x t, u_xx = 2 t."""
    x, t = (points := torch.from_numpy(inside(EQUATIONS["burgers"], 30))).unbind(-1)
    found = EQUATIONS["burgers"].residual(term, lambda p: p[:, 0] ** 2 * p[:, 1], points)
    expected = {
        "equation": x**2 + 2 * x**3 * t**2 - 2 * Burgers.nu * t,
        "boundary": t,
        "initial": torch.sin(torch.pi * x),
    }
    torch.testing.assert_close(found, expected[term])


@pytest.mark.parametrize("name", EQUATIONS)
def test_losses_are_mean_squares_whose_gradient_goes_through_the_derivatives(name):
    problem, equation = problems.load(f"{name}:points=50,hidden=8,layers=2"), EQUATIONS[name]
    assert [task.name for task in problem.tasks] == list(equation.terms)
    model = problem.build()
    batch = problem.collate(problem.splits["train"][:20])
    losses = model(batch["inputs"], batch["targets"]).losses
    assert batch["counts"] == dict.fromkeys(equation.terms, 20)
    for term, loss in losses.items():
        residual = equation.residual(term, model.encoder.at, batch["inputs"]["points"])
        torch.testing.assert_close(loss, residual.square().mean())
        gradients = torch.autograd.grad(loss, model.encoder.layers[0].weight, retain_graph=True)
        assert gradients[0].abs().max() > 0
    # the reference that dev holds is no part of a loss, nor is the graph where none is kept
    held_out = problem.collate(problem.splits["dev"][:20])
    with torch.no_grad():
        read = model(held_out["inputs"], held_out["targets"]).losses
    zero = {name: torch.zeros(20) for name in equation.terms}
    torch.testing.assert_close(
        read, {k: v.detach() for k, v in model(held_out["inputs"], zero).losses.items()}
    )
    assert not any(value.requires_grad for value in read.values())


def test_a_term_can_be_scaled_and_trained_alone():
    torch.manual_seed(0)
    plain = problems.load("burgers:points=50").build()
    scaled = problems.load("burgers:points=50@initial*100")
    model = scaled.only("initial").build()
    model.load_state_dict(plain.state_dict())
    batch = scaled.collate(scaled.splits["train"][:20])
    loss = model(batch["inputs"], {"initial": batch["targets"]["initial"]}).losses["initial"]
    torch.testing.assert_close(loss, 100 * plain(batch["inputs"], batch["targets"]).losses["initial"])


def test_scores_are_the_error_of_the_field():
    problem = problems.load("helmholtz:points=50")
    model = problem.build()
    scores = train.evaluate(model, problem, "test")
    examples = problem.splits["test"]
    points = np.array([example["input"] for example in examples])
    expected = EQUATIONS["helmholtz"].solution(points)
    found = model.encoder.at(torch.tensor(points, dtype=torch.float32)).detach().double().numpy()
    error = np.linalg.norm(found - expected) / np.linalg.norm(expected)
    assert all(score["relative_l2"] == pytest.approx(error, rel=1e-5) for score in scores.values())


@pytest.mark.parametrize("strategy", ["equal", "config", "auto_lambda", "lra"])
def test_burgers_is_learned(strategy):
    problem = problems.load("burgers:points=1000,hidden=20,layers=2")
    torch.manual_seed(0)
    model = problem.build()
    balancer = Balancer(strategy, [task.name for task in problem.tasks], model)
    settings = train.Settings(
        **{**problem.settings, "epochs": 15, "batch_size": 200, "lr": 1e-2, "device": "cpu"}
    )
    history = train.fit(model, balancer, problem, settings, progress=False)
    assert history.best_score > 0.25
    assert type(model.encoder) is Field


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="no option 'point'; did you mean 'points'"):
        problems.load("burgers:point=3")
    with pytest.raises(ValueError, match="layers should be an integer of at least 1, found 0"):
        problems.load("helmholtz:layers=0")
