"""The two-dimensional toy problem: its functions, its Pareto set, and training on it."""

import json
import pickle

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from mtlweights import Balancer, problems
from mtlweights.bench.run import run
from mtlweights.bench.runspec import RunSpec
from mtlweights.cli import main
from mtlweights.problems import Task
from mtlweights.problems.data import toy
from mtlweights.train import Settings

POINTS = [(-8.5, 7.5), (9, 9), (-7.5, -0.5), (9, -1), (0.3, 0.001), (-7, 3), (2, -8.4), (5, -0.2), (-1, 0.7)]


def formula(point):
    """Both losses as the papers' code has them, in NumPy."""
    x1, x2 = point
    f1 = np.log(max(abs(0.5 * (-x1 - 7) - np.tanh(-x2)), 0.000005)) + 6
    f2 = np.log(max(abs(0.5 * (-x1 + 3) + np.tanh(-x2) + 2), 0.000005)) + 6
    c1, c2 = max(np.tanh(0.5 * x2), 0), max(np.tanh(-0.5 * x2), 0)
    q1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    q2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    return np.array([f1 * c1 + q1 * c2, f2 * c1 + q2 * c2])


def leaf(point):
    return torch.tensor(point, dtype=torch.float64, requires_grad=True)


def rows(x):
    return np.stack([torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in toy.losses(x)])


@pytest.mark.parametrize("point", POINTS)
def test_losses_and_gradients(point):
    x = leaf(point)
    np.testing.assert_allclose(toy.losses(x).detach(), formula(point), rtol=1e-12, atol=1e-12)
    step = 1e-6 * np.eye(2)
    differences = [(formula(point + h) - formula(point - h)) / 2e-6 for h in step]
    np.testing.assert_allclose(rows(x), np.stack(differences, 1), rtol=1e-6, atol=1e-7)


def test_batches_of_points_and_the_bottom_of_a_valley():
    batch = torch.tensor(POINTS, dtype=torch.float64)
    np.testing.assert_allclose(
        toy.losses(batch), [formula(point) for point in POINTS], rtol=1e-12, atol=1e-12
    )
    on_the_line = (-7 + 2 * np.tanh(1.0), 1.0)
    lowest = (np.log(0.000005) + 6) * np.tanh(0.5)
    assert toy.losses(leaf(on_the_line))[0].item() == pytest.approx(lowest)


def test_where_the_halves_meet_both_give_their_gradient():
    first, second = np.log(3.5) + 6, 0.5 * np.log(12.25) + 6
    bowl = (49 + 6.4) / 10 - 20
    expected = [[0, (first - bowl) / 2], [0, (second - bowl) / 2]]
    assert toy.losses(leaf((0, 0))).tolist() == [0, 0]
    np.testing.assert_allclose(rows(leaf((0, 0))), expected, rtol=1e-12)


def test_published_figures_of_the_front():
    assert toy.front(np.array([0.0, 7.0])) == pytest.approx([-8.3552, -8.434], abs=5e-4)
    assert formula((0, -8.3552)).mean() == pytest.approx(-15.0916, abs=5e-5)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.8])
def test_the_front_holds_the_minima_of_weighted_sums(share):
    weights = np.array([share, 1 - share])
    found = minimize(lambda x: weights @ formula(x), (0, -6), method="Nelder-Mead", options={"xatol": 1e-9})
    assert found.x == pytest.approx([14 * share - 7, toy.front(np.array([14 * share - 7]))[0]], abs=1e-5)
    assert toy.distance(found.x) < 1e-5


def test_every_other_point_is_dominated_by_one_of_the_front():
    x1 = np.linspace(-7, 7, 2001)
    best = np.stack([formula(point) for point in zip(x1, toy.front(x1), strict=True)])
    assert (np.diff(best[:, 0]) < 0).all() and (np.diff(best[:, 1]) > 0).all()
    points = np.random.default_rng(0).uniform(-11, 11, (3000, 2))
    points = points[toy.distance(points) > 0.5]
    for values in map(formula, points):
        assert (best <= values).all(axis=1).any()


def test_distance_to_the_front_and_beyond_its_ends():
    end = toy.front(np.array([7.0]))[0]
    assert toy.distance(np.array([10.0, end + 4])) == pytest.approx(5)
    assert toy.distance(np.array([[2.0, toy.front(np.array([2.0]))[0] - 0.25]])) == pytest.approx(0.25)


def descend(strategy, start, scale, steps):
    """Adam's points [steps, 2] in float64."""
    x, found = leaf(start), []
    balancer, optimizer = Balancer(strategy, ["l1", "l2"]), torch.optim.Adam([x], lr=1e-3)
    for _ in range(steps):
        first, second = toy.losses(x)
        optimizer.zero_grad()
        balancer.backward({"l1": scale * first, "l2": second})
        optimizer.step()
        found.append(x.detach().clone().numpy())
    return np.array(found)


def test_nash_takes_the_same_way_whatever_the_scale_of_a_loss():
    scaled, plain = (descend("nash_mtl", toy.STARTS[3], scale, 300) for scale in (0.1, 1.0))
    np.testing.assert_allclose(scaled, plain, rtol=0, atol=1e-9)
    assert np.abs(scaled[-1] - scaled[0]).max() > 0.2
    other = [descend("equal", toy.STARTS[3], scale, 300)[-1] for scale in (0.1, 1.0)]
    assert np.abs(other[0] - other[1]).max() > 5e-3


def test_training_takes_the_steps_of_adam_on_the_losses(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(toy, "STEPS", 30)
    command = ["train", "toy:start=4,scale=0.5", "-s", "nash_mtl", "--epochs", "2"]
    assert main([*command, "--out", str(tmp_path / "out")]) == 0
    assert "l1    value" in capsys.readouterr().out
    (file,) = tmp_path.glob("out/runs/*.json")
    result = json.loads(file.read_text())
    expected = descend("nash_mtl", toy.STARTS[3], 1.0, 60)[-1]
    values = formula(expected) * [0.5, 1]
    assert [result["test"][task]["value"] for task in ("l1", "l2")] == pytest.approx(values, abs=1e-4)
    state = torch.load(tmp_path / "out" / "checkpoint.pt", weights_only=False)["model"]
    np.testing.assert_allclose(state["encoder.x"], expected, atol=1e-5)
    assert list(state) == ["encoder.x"]
    assert result["tasks"]["l1"]["higher_is_better"] == {"value": False}


def test_losses_are_positive_and_a_task_alone_can_be_trained(monkeypatch):
    monkeypatch.setattr(toy, "STEPS", 5)
    problem = pickle.loads(pickle.dumps(problems.load("toy:start=3,scale=0.1")))
    batch = problem.collate(problem.splits["train"][:2])
    found = problem.build()(batch["inputs"], batch["targets"]).losses
    expected = (formula((9, 9)) + 21) * [0.1, 1]
    assert [found["l1"].item(), found["l2"].item()] == pytest.approx(expected, rel=1e-6)
    assert problem.tasks[0].normalised(0.1 * formula((9, 9))[0]) == pytest.approx(0)
    assert problem.tasks[0].normalised(-2.0) == pytest.approx(1)
    settings = Settings(**{**problem.settings, "epochs": 1})
    alone = run(RunSpec("toy:start=3", "equal", "l2", settings))
    assert alone["status"] == "ok" and alone["steps"] == 5
    # along a steady gradient Adam moves by its learning rate in each coordinate
    x = np.array((9, 9)) - 5e-3 * np.sign(rows(leaf((9, 9)))[1])
    assert alone["test"]["l2"]["value"] == pytest.approx(formula(x)[1], abs=1e-4)
    assert abs(formula(x)[1] - formula((9, 9))[1]) > 1e-3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("toy:start=7", "start should be a whole number from 1 to 5, found 7"),
        ("toy:start=0", "start should be a whole number from 1 to 5, found 0"),
        ("toy:start=2.0", "start should be a whole number from 1 to 5, found 2.0"),
        ("toy:scale=0", "scale should be a number above 0, found 0"),
        ("toy:scale=big", "scale should be a number above 0, found 'big'"),
        ("toy:strat=2", "no option 'strat'; did you mean 'start'"),
        ("tiy", "did you mean 'toy'"),
    ],
)
def test_bad_specs_are_refused_in_one_line(spec, message, capsys):
    assert main(["train", spec, "-s", "nash_mtl"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_objective_is_its_output_less_a_bound():
    task = Task("o", "objective", ("value",), untrained=3.0, target=-2.0)
    output = torch.tensor([1.0, 4.0, -1.0], requires_grad=True)
    bound = torch.tensor([-2.0, float("nan"), -3.0])
    loss = task.loss(output, bound)
    loss.backward()
    assert loss.item() == 2.5 and output.grad.tolist() == [0.5, 0.0, 0.5]
    assert task.count(bound) == 2
    assert task.score([output], [bound]) == {"value": 0.0}
    assert not task.higher_is_better
    with pytest.raises(ValueError, match="objective takes no labels"):
        Task("o", "objective", ("value",), ("a", "b"))
    with pytest.raises(ValueError, match="metrics of objective are value"):
        Task("o", "objective", ("rmse",))
