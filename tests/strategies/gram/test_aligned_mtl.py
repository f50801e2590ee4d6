"""Aligned-MTL: equal norms in closed form, one singular value, preferences."""

import math

import numpy as np
import pytest

from tests.strategies.helpers import direction, make, pairs


def test_aligned_mtl_of_two_equal_norms():
    for g in pairs():
        g = g / np.linalg.norm(g, axis=1, keepdims=True)
        cosine, mean = g[0] @ g[1], g.mean(axis=0)
        length = 1 if cosine < 0 else math.sqrt((1 - cosine) / (1 + cosine))
        assert direction("aligned_mtl", g, preference=[0.5, 0.5]) == pytest.approx(length * mean, rel=1e-7)


@pytest.mark.parametrize("scale", ["min", "median", "rmse"])
def test_aligned_gradients_have_one_singular_value(scale):
    rng = np.random.default_rng(6)
    jacobian = rng.normal(size=(4, 9)) * 10.0 ** rng.uniform(-1, 1, size=(4, 1))
    aligned = np.array([direction("aligned_mtl", jacobian, scale=scale, preference=row) for row in np.eye(4)])
    values = np.linalg.svd(jacobian, compute_uv=False) ** 2
    wanted = {"min": values.min(), "median": np.median(values), "rmse": values.mean()}[scale]
    assert np.linalg.svd(aligned, compute_uv=False) ** 2 == pytest.approx([wanted] * 4)


def test_aligned_mtl_weighs_the_preferences_of_those_present():
    strategy = make("aligned_mtl", 3, preference=[1.0, 2.0, 5.0])
    assert strategy.weights(np.eye(2), np.ones(2), np.array([2, 0])).tolist() == pytest.approx([5, 1])
