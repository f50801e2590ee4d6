"""Static weights over the simplex, what a step costs, and averages across problems: shown, not judged."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from test_budget import in_process, knows  # noqa: F401 (the fixture is used by itself)

from mtlweights.bench import foresee, read_results, run_suite
from mtlweights.bench.costs import FILE, measure_costs, read_costs
from mtlweights.bench.front import SEEDS, is_front, static_weights
from mtlweights.bench.merge import merge
from mtlweights.bench.report.across import across_problems
from mtlweights.bench.report.comparison import compare, verdicts
from mtlweights.bench.report.costs import cost_figure, cost_grid, costs_of
from mtlweights.bench.report.front import against_front, changes
from mtlweights.bench.report.panels import trade_off
from mtlweights.bench.selection import labelled, read_choices
from mtlweights.bench.statistics.pareto import dominating, hypervolume
from mtlweights.bench.suite import Suite
from mtlweights.bench.suitefile import load_suite
from mtlweights.cli.main import main


def swept(spec):
    """`test_budget.knows`, where static weights trade the tasks for each other along a quarter circle."""
    result = knows(spec)
    if spec.strategy.startswith("fixed:alpha=") and spec.scored and spec.only is None:
        first, second = map(float, spec.strategy.partition("[")[2].rstrip("]").split(","))
        angle = np.pi / 2 * first / (first + second)
        result["test"]["diagnosis"]["accuracy"] += 0.1 * np.sin(angle)
        result["test"]["radius"]["rmse"] -= 0.1 * np.cos(angle)
    return result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("front")


@pytest.fixture
def found(folder, in_process):  # noqa: F811
    """The only comparison of a suite with a front of five points, and the suite."""
    suite = Suite("s", {"breast_cancer": {}}, ("uw", "cagrad"), (0,), {}, front=5).under("tuned8")
    suite = replace(suite, seeds=(0, 1, 2, 3))
    run_suite(suite, folder, progress=False, runner=swept)
    choices = read_choices(folder)
    (comparison,) = compare(labelled(read_results(folder), choices), None, choices)
    return comparison, suite


def test_weights_inside_the_simplex():
    assert static_weights(2, 3) == [(0.5, 1.5), (1.0, 1.0), (1.5, 0.5)]
    rows = np.array(static_weights(4, 60))
    assert len({*map(tuple, rows)}) == 60 and (rows > 0).all() and np.allclose(rows.sum(1), 4, atol=0.01)
    assert np.allclose(rows.mean(0), 1, atol=0.1)


@pytest.mark.parametrize("tasks", [2, 3, 4])
def test_the_volume_is_that_of_the_cells_some_point_dominates(tasks):
    generator = np.random.default_rng(tasks)
    for _ in range(20):
        points = generator.integers(-1, 5, (generator.integers(1, 7), tasks)).astype(float)
        corners = np.array(list(product(range(5), repeat=tasks))) + 1.0
        cells = (points[None] >= corners[:, None]).all(2).any(1).sum()
        assert hypervolume(points, np.zeros(tasks)) == pytest.approx(cells)
    assert dominating(np.zeros(2), np.array([[1.0, -1], [0, 0], [0, 2]])) == 2
    assert dominating(np.zeros(2), np.zeros((1, 2))) is None


def test_the_front_has_what_equal_weights_chose_and_is_not_judged(found, folder):
    comparison, suite = found
    points = [choice for choice in read_choices(folder) if is_front(choice.arm)]
    (equal,) = (choice for choice in read_choices(folder) if choice.arm == "equal")
    assert len(points) == 5 and {len(choice.seeds) for choice in points} == {SEEDS}
    assert {c.trials[0]["settings"]["lr"] for c in points} == {equal.trials[equal.chosen]["settings"]["lr"]}
    assert len(comparison.front) == 5 and len(next(iter(changes(comparison, comparison.front).values()))) == 3
    assert not any("front" in row.arm for row in comparison.rows)
    assert not any("front" in line["arm"] for line in verdicts(comparison.results))
    # adding it moved nobody's verdict
    kept = [choice for choice in read_choices(folder) if not is_front(choice.arm)]
    without = [result for result in labelled(read_results(folder), kept) if "arm" in result]
    assert compare(without)[0].findings == comparison.findings
    assert "nothing to do" in foresee.foresee(suite, folder, {}, 1)[-1]
    more = foresee.foresee(replace(suite, front=6), folder, {}, 1)[0]
    assert f", {6 * SEEDS} to do" in more


def test_arms_against_the_front(found):
    comparison, _ = found
    rows = {arm: [cell.text for cell in cells] for arm, cells in against_front(comparison).rows}
    assert rows["random"][0] and float(rows["random"][1]) == 0  # the worst arm is below every weight
    assert rows["uw"] == ["1 : 1", "0.00"] and rows["fixed"][0] == ""
    line = "stroke-width: 2.5"
    assert line in trade_off(comparison) and line not in trade_off(replace(comparison, front={}))
    assert against_front(replace(comparison, front={})) is None


def test_costs_are_measured_once_kept_and_shown(found, folder, tmp_path, capsys):
    comparison, _ = found
    choices = read_choices(folder)
    costs = measure_costs(choices, tmp_path, rounds=4)
    arms = {choice.arm for choice in choices if choice.only is None and not is_front(choice.arm)} - {"equal"}
    assert len(costs) == len(arms) and all(cost["time"] > 0 for cost in costs.values())
    assert measure_costs(choices, tmp_path, rounds=0) == costs == read_costs(tmp_path)  # nothing again
    own = costs_of(comparison, {key: {"time": 100.0, "memory": 0.0} for key in costs})
    rows = {arm: [cell.text for cell in cells] for arm, cells in cost_grid(comparison, own).rows}
    assert rows["equal"][0] == "1.00" and rows["cagrad"][0] == "100.00"
    assert rows["cagrad"][2] == "n/a"  # no epoch in that time
    assert rows["equal"][1] == rows["equal"][2] != "n/a"
    assert "cagrad" in cost_figure(comparison, own)
    broken = [
        replace(choices[2], arm="bad", trials=({**choices[2].trials[0], "strategy": "no_such", "id": "b"},))
    ]
    assert "b" not in measure_costs([replace(one, chosen=0) for one in broken], tmp_path)
    assert "no cost of bad on breast_cancer: ValueError" in capsys.readouterr().err
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(ValueError, match="holds no costs"):
        read_costs(tmp_path)


def test_merged_folders_have_the_costs_of_both(found, folder, tmp_path):
    (folder / FILE).write_text(json.dumps({"a": {"time": 2.0, "memory": 1.0}}))
    merge([folder], tmp_path)
    assert read_costs(tmp_path) == {"a": {"time": 2.0, "memory": 1.0}}


def test_across_problems(found):
    comparison, _ = found
    assert across_problems([comparison]) == []
    others = [replace(comparison, problem=f"p{k}") for k in range(14)]
    (few,) = across_problems([comparison, others[0], replace(others[1], problem="p0@radius*100")])
    assert few["figure"] == "" and "6 arms on 2 problems: too few" in few["summary"]
    arms = [arm for arm, _ in few["grids"][0].rows]
    assert arms[0] == "fixed" and arms[-1] == "random" and "single" not in arms
    (many,) = across_problems([comparison, *others])
    assert "cannot be told apart (Nemenyi)" in many["summary"] and many["figure"].startswith("<svg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("front: -1\nbudget: smoke\n", "front should be a number of points from 0 to 200, found -1"),
        ("front: many\nbudget: smoke\n", "found 'many'"),
        ("front: 5\n", "a front is drawn under a budget"),
    ],
)
def test_a_front_that_cannot_be(text, message, tmp_path, capsys):
    file = tmp_path / "suite.yaml"
    file.write_text(f"problems: [breast_cancer]\nstrategies: [uw]\n{text}")
    assert main(["bench", str(file), "--dry-run"]) == 2
    assert message in capsys.readouterr().err
    file.write_text("problems: [breast_cancer]\nstrategies: [uw]\nfront: 5\nbudget: smoke\n")
    assert load_suite(file).front == 5


def test_budgets_costs_and_axes_do_without_optuna(tmp_path):
    """The extra ``bench`` does not bring it."""
    program = """
import sys
sys.modules["optuna"] = None
from test_budget import arms
from mtlweights.bench.axes import axis_of
from mtlweights.bench.costs import measure_costs
from mtlweights.bench.selection import choose
print(len(arms()), axis_of("sharing").on("breast_cancer", "ple"))
arm = next(arm for arm in arms("default") if arm.name == "random")
print(len(measure_costs([choose(arm, {})], sys.argv[1], rounds=3)))
"""
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    told = {"capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": path}}
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], **told)
    assert done.stdout.split() == ["7", "breast_cancer:sharing=ple", "1"], done.stderr
