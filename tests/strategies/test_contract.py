"""The public contract suite over the registry, and what only ours keep to beyond it."""

import numpy as np
import pytest
import torch

from mtlweights import strategies
from mtlweights.strategies import JacobianStrategy
from mtlweights.testing import CHECKS, PROPERTIES, check
from mtlweights.testing.cases import ordinary
from mtlweights.testing.harness import Case, Harness

every = pytest.mark.parametrize("name", strategies.names())
#: hyperparameters that make a method another one
VARIANTS = [("mgda", {"normalisation": kind}) for kind in ("l2", "loss", "loss+")]
VARIANTS += [("aligned_mtl", {"scale": kind}) for kind in ("median", "rmse")]
#: checks of the class or of its defaults, and one that asks for unique weights of dependent gradients
NOT_OF_VARIANTS = {"class_attributes", "scale_degree", *PROPERTIES}


@every
@pytest.mark.parametrize("name_of_check", CHECKS)
def test_contract(name, name_of_check):
    check(name_of_check, name)


@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
@pytest.mark.parametrize("name_of_check", [c for c in CHECKS if c not in NOT_OF_VARIANTS])
def test_contract_of_variants(name, hyperparameters, name_of_check):
    check(name_of_check, name, hyperparameters)


@pytest.mark.parametrize(("name", "hyperparameters"), VARIANTS)
def test_scale_of_the_losses_in_variants(name, hyperparameters):
    """On independent gradients, where the weights are unique."""
    case = ordinary(3, 0)
    weights = Harness(strategies.get(name)(3, **hyperparameters)).propose(case).weights[0]
    for scale in (1e-6, 1e-3, 1e3, 1e6):
        scaled = Case("scaled", scale * case.jacobian, scale * case.losses)
        found = Harness(strategies.get(name)(3, **hyperparameters)).propose(scaled).weights[0]
        assert found == pytest.approx(weights, rel=1e-9)


@every
def test_class_names_its_paper(name):
    cls = strategies.get(name)
    assert "https://" in cls.paper
    assert cls.__doc__.partition("\n")[0].endswith(".")


@every
def test_one_task_is_weighted_alone(name):
    strategy = strategies.get(name)(1)
    if isinstance(strategy, JacobianStrategy):
        return
    degree = strategy.scale_degree
    case = Case("one task", np.full((1, 4), 0.2), np.array([0.4]))
    weight = Harness(strategy).propose(case).weights[0].sum()  # over its batches
    expected = 1.5 if name == "cagrad" else 0.4 ** ((degree or 0) - 1)  # its ball: (1 + c) g
    assert weight > 0 if degree is None else weight == pytest.approx(expected)


@every
def test_end_epoch_without_news_of_a_task_moves_nothing_of_it(name):
    """But for its share of the sum, the weight."""
    harness = Harness(strategies.get(name)(3))
    for n in range(8):
        harness.step(ordinary(3, n))
        if n % 3 == 2:
            harness.strategy.end_epoch(np.ones(3), np.full(3, 0.5))
    before, nan = harness.snapshot(), float("nan")
    harness.strategy.end_epoch(np.array([0.2, nan, 0.4]), np.array([0.2, nan, 0.4]))
    for key, value in harness.snapshot().items():
        if key != "weight" and value.shape[:1] == (3,):
            assert torch.equal(value[1].nan_to_num(7e7), before[key][1].nan_to_num(7e7)), key


@every
def test_bad_number_of_tasks_is_refused(name):
    with pytest.raises(ValueError, match="n_tasks should be an integer of at least 1, found 0"):
        strategies.get(name)(0)
