"""Predictions of a run: kept, read again, and scored under a bootstrap of the test examples."""

import math

import numpy as np
import pytest
from test_budget import in_process  # noqa: F401 (used by itself)

from mtlweights import problems
from mtlweights.bench import read_results, run_suite
from mtlweights.bench.predictions import PREDICTIONS, path_of, read
from mtlweights.bench.statistics.items import resampled, weights
from mtlweights.bench.suite import Suite
from mtlweights.problems import metrics

RNG = np.random.default_rng(0)
LABELS = ("O", "B-a", "I-a", "B-b", "I-b")


@pytest.mark.parametrize("name", ["tagging", "breast_cancer"])
def test_what_a_run_predicted_gives_its_scores_again(tmp_path, name):
    suite = Suite("s", {name: {"epochs": 4}}, ("equal",), (0,), {})
    results = run_suite(suite, tmp_path, progress=False)
    tasks = {task.name: task for task in problems.load(name).tasks}
    for result in results:
        found = read(result["id"], tmp_path)
        assert found.keys() == result["test"].keys() == result["resampled"].keys()
        for task, own in found.items():
            metric, ones = tasks[task].metrics[0], np.ones((1, len(own.sizes)))
            (again,) = resampled(metric, own.predicted, own.expected, own.sizes, tasks[task].labels, ones)
            assert again == pytest.approx(result["test"][task][metric], rel=1e-6)
            draws = result["resampled"][task]
            assert len(draws) == 200 and np.std(draws) > 0
            assert abs(np.mean(draws) - again) < 3 * np.std(draws)
    stamp = [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("runs/*.json"))]
    run_suite(suite, tmp_path, progress=False, runner=None)
    assert stamp == [path.stat().st_mtime_ns for path in sorted(tmp_path.glob("runs/*.json"))]


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "rmse", "pearson", "span_f1"])
def test_a_draw_is_the_metric_of_the_examples_drawn(metric):
    sizes = RNG.integers(0, 6, 40)
    n = int(sizes.sum())
    if metric in ("rmse", "pearson"):
        expected = RNG.normal(size=n) * 3 + 100
        predicted = expected + RNG.normal(size=n)
    else:
        expected, predicted = RNG.integers(0, 5, n), RNG.integers(0, 5, n)
        predicted = np.where(RNG.random(n) < 0.6, expected, predicted)
    drawn = weights(40, draws=20)
    found = resampled(metric, predicted, expected, sizes, LABELS, drawn)
    ends = np.cumsum(sizes)
    for row, value in zip(drawn, found, strict=True):
        chosen = np.repeat(np.arange(40), row.astype(int))
        sides = [[side[ends[k] - sizes[k] : ends[k]] for k in chosen] for side in (predicted, expected)]
        if metric == "span_f1":
            named = [[[LABELS[i] for i in part] for part in side] for side in sides]
            assert value == pytest.approx(metrics.span_f1(*named))
        else:
            assert value == pytest.approx(getattr(metrics, metric)(*map(np.concatenate, sides)))


def test_draws_are_with_replacement_and_the_same_for_every_run():
    drawn = weights(500)
    assert drawn.shape == (200, 500) and set(drawn.sum(1)) == {500.0}
    assert abs((drawn == 0).mean() - math.exp(-1)) < 0.01
    assert (drawn == weights(500)).all()
    assert resampled("auroc", np.zeros(3), np.zeros(3), np.ones(3, int), (), weights(3)) is None


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", None])
def test_predictions_that_cannot_be_read_are_none(tmp_path, damage):
    path = path_of("run", tmp_path)
    path.parent.mkdir()
    if damage is not None:
        path.write_bytes(damage)
    assert read("run", tmp_path) is None


def test_no_array_in_the_file_is_a_pickle(tmp_path):
    path = path_of("run", tmp_path)
    path.parent.mkdir()
    np.savez(path, tasks=np.array('["a"]'), **{"0.predicted": np.array([object()])}, allow_pickle=True)
    assert read("run", tmp_path) is None and PREDICTIONS in str(path)


def test_a_trial_leaves_no_predictions(tmp_path):
    suite = Suite("s", {"breast_cancer": {"epochs": 1}}, ("equal",), (0,), {}, budget="tuned8")
    finals = run_suite(suite, tmp_path, progress=False)
    kept = {path.stem for path in (tmp_path / PREDICTIONS).iterdir()}
    assert kept == {result["id"] for result in finals}
    assert len(read_results(tmp_path)) == 9 * len(finals)
