"""Search spaces: ranges as literals, and what strategies, the loop and encoders declare."""

from __future__ import annotations

import math

import pytest

from mtlweights import problems
from mtlweights.problems.data import from_examples
from mtlweights.specs import format_spec
from mtlweights.strategies import LossStrategy
from mtlweights.strategies.registry import STRATEGIES
from mtlweights.strategies.space import Choices, Numbers, Ratios, read_range, read_space
from mtlweights.testing import check
from mtlweights.train import Settings
from mtlweights.train.settings import space as loop_space

optuna = pytest.importorskip("optuna")


def test_a_range_is_read_from_its_literal():
    assert read_range("c", (0.0, 1.0)) == Numbers(0.0, 1.0)
    assert read_range("n", (1, 4)).whole
    assert read_range("lr", (1e-4, 1.0, "log")) == Numbers(1e-4, 1.0, True)
    assert read_range("kind", ["a", None, 1]) == Choices(("a", None, 1))
    assert read_range("alpha", ("ratios", 10)) == Ratios(10.0)


@pytest.mark.parametrize(
    "wrong", [(1.0, 0.0), (0.0, 1.0, "log"), [], (1,), 3, ("ratios", 1), (0.0, math.inf), [[1], 2], (0, True)]
)
def test_what_is_no_range_is_refused(wrong):
    with pytest.raises(ValueError, match="c: a range is"):
        read_range("c", wrong)


@pytest.mark.parametrize("n_tasks", [1, 2, 5])
def test_weights_have_mean_1_and_log_uniform_ratios(n_tasks):
    space = Ratios(100.0)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found = [space.suggest(study.ask(), "alpha", n_tasks) for _ in range(400)]
    assert all(math.isclose(sum(weights), n_tasks, rel_tol=1e-3) for weights in found)
    for task in range(1, n_tasks):
        logs = [math.log10(weights[task] / weights[0]) for weights in found]
        assert -2 <= min(logs) < -1.9 and 1.9 < max(logs) <= 2
        quarters = [sum(low <= x < low + 1 for x in logs) for low in (-2, -1, 0, 1)]
        assert all(65 <= n <= 135 for n in quarters)  # 100 each: within 4 standard deviations


def test_a_trial_fixed_to_a_value_suggests_that_value():
    for declared, value in {(0.0, 1.0): 0.3, (1, 4): 4, ("ratios", 50.0): [0.5, 1.5]}.items():
        study = optuna.create_study()
        space = read_range("x", declared)
        study.enqueue_trial(space.fixed("x", value, 2))
        assert space.suggest(study.ask(), "x", 2) == pytest.approx(value)


def test_a_value_outside_cannot_be_fixed():
    for declared, value in {(0.0, 1.0): 1.5, (1, 4): 1.5, ("ratios", 5.0): [0.1, 1.0]}.items():
        with pytest.raises(ValueError, match="x should be"):
            read_range("x", declared).fixed("x", value, 2)
    with pytest.raises(ValueError, match="one of"):
        Choices(("a",)).fixed("x", "b", 2)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_declares_a_space_that_builds(name):
    check("space", name)


class _Bounded(LossStrategy):
    """Takes alpha from 0 to 1."""

    family = "test"

    def __init__(self, n_tasks, *, alpha=0.5):
        super().__init__(n_tasks)
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha should be from 0 to 1, found {alpha}.")

    def combine(self, losses, present=None):
        return losses.sum()


@pytest.mark.parametrize(
    ("space", "said"),
    [
        ({"alpha": (0.0, 2.0)}, "allows alpha=2.0"),
        ({"alpha": (0.6, 1.0)}, "hold the default"),
        ({"alpha": 1}, "a range is"),
    ],
)
def test_the_contract_refuses_a_space_that_does_not_build(space, said):
    with pytest.raises(AssertionError, match=said):
        check("space", type("Wrong", (_Bounded,), {"space": space, "__doc__": "Wrong."}))


def test_a_strategy_with_nothing_to_tune_says_so():
    with pytest.raises(AssertionError, match="declares no space"):
        check("class_attributes", type("Silent", (_Bounded,), {"__doc__": "Silent."}))


@pytest.mark.parametrize("own", [{}, {"weight_decay": 0.0, "clip": None}, {"clip": 7.0, "warmup": 0.5}])
def test_the_loop_declares_ranges_that_hold_its_own_settings_and_build(own):
    settings = Settings(**own)
    space = read_space(loop_space(settings))
    assert {"lr", "schedule", "warmup", "batch_size", "clip"} <= space.keys()
    assert math.log10(space["lr"].high / space["lr"].low) >= 1.5
    for name, values in space.items():
        values.fixed(name, getattr(settings, name), 2)
        for end in values.ends(2):
            Settings(**{**own, name: end})


@pytest.mark.parametrize("spec", ["tagging", "breast_cancer", "tagging:hidden=16,layers=2"])
def test_an_encoder_declares_width_depth_and_dropout_that_build(spec):
    problem = problems.load(spec)
    space = read_space(problem.space)
    assert list(space) == ["hidden", "layers", "dropout"]
    name, _, options = spec.partition(":")
    given = dict(part.split("=") for part in options.split(",") if part)
    for option, values in space.items():
        if option in given:
            values.fixed(option, int(given[option]), 2)
        for end in values.ends(2):
            problems.load(format_spec(name, {option: end})).build()


def test_a_fine_tuned_transformer_declares_nothing():
    assert "transformer" in from_examples.OPTIONS
    assert problems.load("toy").space == {}
