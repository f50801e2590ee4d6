"""GCS against the two algorithms of its paper, by cosines taken from the gradients themselves."""

import numpy as np
import pytest

from mtlweights import strategies


def weights(rows, present=None, n_tasks=None, **hyperparameters):
    rows = np.asarray(rows, dtype=np.float64)
    present = np.arange(len(rows)) if present is None else np.array(present)
    strategy = strategies.get("gcs")(n_tasks or len(rows), **hyperparameters)
    return strategy.weights(rows @ rows.T, np.ones(len(rows)), present)


@pytest.mark.parametrize("main", [0, 2])
def test_both_variants_on_random_gradients(main):
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = rng.normal(size=(4, 3)) * 10.0 ** rng.uniform(-6, 6, (4, 1))
        unit = [row / np.sqrt(sum(x * x for x in row)) for row in rows]
        cosines = [float(u @ unit[main]) for u in unit]
        kept = [1.0 if i == main or c >= 0 else 0.0 for i, c in enumerate(cosines)]
        assert weights(rows, main=main).tolist() == kept
        soft = [1.0 if i == main else max(c, 0.0) for i, c in enumerate(cosines)]
        assert weights(rows, main=main, variant="weighted") == pytest.approx(soft, abs=1e-12)


def test_the_direction_never_opposes_the_main_gradient():
    rng = np.random.default_rng(1)
    for variant in ("unweighted", "weighted"):
        for _ in range(50):
            rows = rng.normal(size=(5, 4))
            assert weights(rows, variant=variant) @ rows @ rows[0] >= rows[0] @ rows[0] * (1 - 1e-12)


def test_no_main_task_and_no_main_gradient():
    assert weights([[1, 0], [-1, 0]], present=[1, 2], n_tasks=3).tolist() == [1, 1]
    assert weights([[0, 0], [-1, 0]]).tolist() == [1, 1]
    assert weights([[0, 0], [-1, 0]], variant="weighted").tolist() == [1, 0]


@pytest.mark.parametrize("wrong", [{"main": 2}, {"variant": "soft"}])
def test_bad_hyperparameters_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        strategies.get("gcs")(2, **wrong)
