"""Metrics against hand-computed values, and against scikit-learn and seqeval's own definition."""

import sys

import numpy as np
import pytest
from sklearn import metrics as sklearn_metrics

from mtlweights.problems import metrics


@pytest.mark.parametrize("seed", range(5))
def test_classification_metrics_equal_scikit_learns(seed):
    generator = np.random.default_rng(seed)
    predicted, expected = generator.integers(0, 5, 40), generator.integers(0, 6, 40)
    assert metrics.accuracy(predicted, expected) == sklearn_metrics.accuracy_score(expected, predicted)
    assert metrics.macro_f1(predicted, expected) == pytest.approx(
        sklearn_metrics.f1_score(expected, predicted, average="macro", zero_division=0)
    )


@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e100])
def test_pearson_equals_numpys_at_any_scale(scale):
    x, y = np.random.default_rng(0).normal(size=(2, 30))
    assert metrics.pearson(scale * x, x + y) == pytest.approx(np.corrcoef(x, x + y)[0, 1])
    assert metrics.pearson(x, -3 * x) == pytest.approx(-1)


def test_pearson_of_a_constant_is_zero():
    assert metrics.pearson(np.full(5, 0.1), np.arange(5.0)) == 0.0
    assert metrics.pearson(np.arange(5.0), np.full(5, 0.1)) == 0.0


def test_rmse():
    assert metrics.rmse(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == pytest.approx(2**0.5)


def test_regression_metrics_equal_scikit_learns():
    predicted, expected = np.random.default_rng(0).normal(3, 2, size=(2, 40))
    assert metrics.mae(predicted, expected) == pytest.approx(
        sklearn_metrics.mean_absolute_error(expected, predicted)
    )
    assert metrics.r2(predicted, expected) == pytest.approx(sklearn_metrics.r2_score(expected, predicted))
    assert metrics.mse(predicted, expected) == pytest.approx(
        sklearn_metrics.mean_squared_error(expected, predicted)
    )
    # the root of 1 - R2, where the training mean is that of the items
    assert metrics.rrmse(predicted, expected, expected.mean()) ** 2 == pytest.approx(
        1 - metrics.r2(predicted, expected)
    )


def test_rrmse_is_one_for_the_training_mean_and_relative_l2_for_zero():
    expected = np.array([1.0, 2.0, 6.0])
    assert metrics.rrmse(np.full(3, 10.0), expected, 10.0) == 1.0
    assert metrics.rrmse(np.zeros(3), np.full(3, 2.0), 2.0) == 1.0
    assert metrics.r2(np.zeros(3), np.full(3, 2.0)) == 0.0
    assert metrics.relative_l2(np.zeros(3), expected) == 1.0


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("ties", [False, True])
def test_rankings_equal_scikit_learns(seed, ties):
    generator = np.random.default_rng(seed)
    positive, scores = generator.random(60) < 0.3, generator.normal(size=60)
    scores = np.round(scores) if ties else scores
    assert metrics.auroc(scores, positive) == pytest.approx(
        sklearn_metrics.roc_auc_score(positive, scores), abs=1e-12
    )
    assert metrics.average_precision(scores, positive) == pytest.approx(
        sklearn_metrics.average_precision_score(positive, scores), abs=1e-12
    )


def test_nothing_can_be_ranked_where_a_class_is_missing():
    scores = np.arange(4.0)
    assert metrics.auroc(scores, np.zeros(4, bool)) == metrics.auroc(scores, np.ones(4, bool)) == 0.5
    assert metrics.average_precision(scores, np.zeros(4, bool)) == 0.0
    assert metrics.average_precision(scores, np.ones(4, bool)) == 1.0


@pytest.mark.parametrize(
    ("predicted", "f1"),
    [
        ("O B-PER I-PER O B-LOC", 1.0),
        ("O B-PER O O B-LOC", 0.5),  # too short
        ("O B-ORG I-ORG O B-LOC", 0.5),  # wrong type
        ("O I-PER I-PER O B-LOC", 2 / 3),  # strict: I- starts no span
        ("O B-PER I-PER O O", 2 / 3),
        ("B-PER B-PER I-PER O B-LOC", 0.8),
        ("O O O O O", 0.0),
    ],
)
def test_span_f1(predicted, f1):
    expected = "O B-PER I-PER O B-LOC"
    assert metrics.span_f1([predicted.split()], [expected.split()]) == pytest.approx(f1)


def test_span_f1_counts_every_expected_span_of_iob1_as_conlleval_does():
    """seqeval's default mode is conlleval's rule."""
    from seqeval.metrics import f1_score

    generator = np.random.default_rng(0)
    labels = np.array(["O", "B-PER", "I-PER", "I-LOC", "B-LOC"])
    for _ in range(20):
        expected, predicted = (
            [list(map(str, s)) for s in labels[generator.integers(0, 5, (4, 6))]] for _ in "ab"
        )
        expected[0][:2] = ["O", "I-PER"]
        assert metrics.span_f1(expected, expected) == 1.0
        assert metrics.span_f1(predicted, expected) == pytest.approx(f1_score(expected, predicted))


def test_span_f1_does_not_join_spans_over_sentences_and_takes_text_without_any():
    assert metrics.span_f1([["B-PER"], ["I-PER"]], [["B-PER"], ["O"]]) == 1.0
    assert metrics.span_f1([["O"]], [["O"]]) == 0.0
    assert metrics.span_f1([["B-PER"]], [["O"]]) == 0.0


def test_span_f1_without_seqeval_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "seqeval.metrics", None)
    with pytest.raises(ImportError, match=r"pip install mtlweights\[bench\]"):
        metrics.span_f1([["O"]], [["O"]])
