"""Arms that differ in a problem's options or in settings: the same protocol as between strategies."""

import json

import pytest
import torch
from test_budget import TASKS, in_process  # noqa: F401 (the fixture is used by itself)

from mtlweights import problems
from mtlweights.bench import load_suite, read_results, run_suite, run_until_resolved
from mtlweights.bench.axes import AXES, Axis, axis_of
from mtlweights.bench.budget import BUDGETS, arms_of, seed_of
from mtlweights.bench.report import text_tables, verdicts
from mtlweights.bench.report.comparison import compare
from mtlweights.bench.report.verdict_figure import verdict_figure
from mtlweights.bench.selection import FILE, labelled, read_choices
from mtlweights.bench.suite import Suite
from mtlweights.cli import main
from mtlweights.train import Settings

PROBLEM = "breast_cancer"


def knows(spec):
    """A run whose scores follow from the form of sharing: mmoe is better, ple worse."""
    names = [spec.only] if spec.only else list(TASKS)
    effect = 0.05 * ("mmoe" in spec.problem) - 0.05 * ("ple" in spec.problem)
    good = 0.9 + effect + spec.seed % 7 * 1e-4 + len(spec.problem) % 3 * spec.seed % 5 * 1e-4
    test = {name: {TASKS[name]["metrics"][0]: good if name == "diagnosis" else 2 - good} for name in names}
    row = {"epoch": 1, "dev": test, "weight": {}, "score": good}
    found = {"tasks": {name: TASKS[name] for name in names}, "test": test if spec.scored else {}}
    return spec.result(status="ok", best_epoch=1, steps=1, seconds=0.1, dev=test, history=[row], **found)


def suite(axis="sharing", problem=PROBLEM, strategies=("equal",), budget="default", seeds=(0, 1, 2)):
    made = Suite("s", {problem: {"epochs": 1}}, strategies, seeds, {}, axis=axis_of(axis)).under(budget)
    return Suite(**{**vars(made), "seeds": seeds})


def arms(axis, budget="tuned8", strategies=("equal",), problem=PROBLEM):
    return arms_of(
        problem, list(TASKS), strategies, Settings(epochs=1), BUDGETS[budget], range(3), axis_of(axis)
    )


def test_arms_differ_in_nothing_but_what_the_axis_says():
    found = arms("sharing")
    assert [arm.name for arm in found] == ["single", "single", *AXES["sharing"]]
    assert [arm.on for arm in found[:4]] == [None, None, PROBLEM, f"{PROBLEM}:sharing=task_dependent"]
    assert len({tuple(run.settings for run in arm.trials) for arm in found}) == 1
    assert {arm.seeds for arm in found} == {tuple(seed_of(PROBLEM, k) for k in range(3))}
    finals = found[-1].finals(3)
    assert [run.problem for run in finals] == [f"{PROBLEM}:sharing=mtan"] * 3 and all(
        run.scored for run in finals
    )


def test_a_setting_may_be_an_axis_and_strategies_may_be_crossed_with_it():
    found = arms("weight_decay=[0.0,0.1]", "default", ("equal", "uw"))[2:]
    assert [arm.name for arm in found] == [
        f"weight_decay={w} {s}" for s in ("equal", "uw") for w in ("0.0", "0.1")
    ]
    assert [arm.trials[0].settings.weight_decay for arm in found] == [0.0, 0.1] * 2
    assert [arm.trials[0].strategy for arm in found] == ["equal", "equal", "uw", "uw"]
    assert found[0].axis == ("weight_decay", "weight_decay=0.0 equal")


@pytest.mark.parametrize("axis", AXES)
def test_every_axis_fits_a_problem_on_a_table(axis):
    found = arms(axis, "default")[2:]
    assert [arm.name for arm in found] == [*AXES[axis]] and len(
        {run.id for a in found for run in a.trials}
    ) > 2
    for arm in found:
        torch.manual_seed(0)
        assert problems.load(arm.on).build()


def test_losses_that_are_multiplied_keep_their_factors():
    found = arms("hidden=[8,16]", problem=f"{PROBLEM}@radius*100")[2:]
    assert [run.problem for run in found[0].finals(0)] == [f"{PROBLEM}:hidden=8@radius*100"] * 3
    assert found[0].trials[0].problem == f"{PROBLEM}:hidden=8"


def test_the_table_judges_by_the_first_arm(tmp_path):
    results = run_suite(suite(), tmp_path, runner=knows, progress=False, jobs=2)
    choices = read_choices(tmp_path)
    own = labelled(results, choices)
    (comparison,) = compare(own, None, choices)
    assert [row.arm for row in comparison.rows] == ["single", "agnostic", *sorted([*AXES["sharing"]][1:])]
    assert (comparison.problem, comparison.settings["axis"], comparison.base) == (
        PROBLEM,
        "sharing",
        "agnostic",
    )
    assert comparison.verdict("mmoe", "agnostic", "Δm").verdict == "better"
    assert comparison.verdict("ple", "agnostic", "Δm").verdict == "worse"
    text = text_tables(own, None, choices)
    assert "Δm against agnostic, 3 seeds" in text and "Against agnostic (+ is better" in text
    assert {v["axis"] for v in verdicts(own)} == {"sharing"}
    assert "Δm of every arm against agnostic" in verdict_figure(comparison)
    assert labelled(read_results(tmp_path), choices) == sorted(own, key=lambda result: result["id"])
    assert run_suite(suite(), tmp_path, runner=None, progress=False, jobs=2) == results  # nothing is left


def test_two_axes_and_strategies_in_one_folder_share_runs_and_are_three_comparisons(tmp_path):
    made = []

    def counted(spec):
        made.append(spec.id)
        return knows(spec)

    bare = Suite(**{**vars(suite()), "axis": None, "strategies": ("equal",)})
    for one in (suite(), suite("hidden=[64,8]"), bare):
        run_suite(one, tmp_path, runner=counted, progress=False, jobs=2)
    assert len(made) == len(set(made)) == 3 * (2 + 7 + 2)  # equal weights are an arm of two
    choices = read_choices(tmp_path)
    found = compare(labelled(read_results(tmp_path), choices), None, choices)
    assert {(c.settings.get("axis"), len(c.rows), len(c.choices)) for c in found} == {
        ("sharing", 8, 9),
        ("hidden", 3, 4),
        (None, 2, 3),
    }


def test_choices_without_an_axis_are_written_as_before(tmp_path):
    run_suite(Suite(**{**vars(suite()), "axis": None}), tmp_path, runner=knows, progress=False, jobs=2)
    assert not {"axis", "on"} & {
        key for choice in json.loads((tmp_path / FILE).read_text()) for key in choice
    }


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("sharin", "there is no axis 'sharin'; did you mean 'sharing'"),
        ("hidden=8", "takes values, as in"),
        ("hidden=[8]", "should have two arms or more, found 1"),
        ("seed=[1,2]", "seed is no setting of an arm"),
        ("lr=[0.1,-1]", "lr must be a number above 0, got -1"),
    ],
)
def test_what_is_no_axis_is_refused(said, wrong):
    with pytest.raises(ValueError, match=wrong):
        axis_of(said)


@pytest.mark.parametrize(
    ("axis", "wrong"),
    [
        ("hidden=[0,8]", "arm 'hidden=0'.*hidden should be an integer of at least 1, found 0"),
        ("hiden=[4,8]", "arm 'hiden=4'.*no option 'hiden'; did you mean 'hidden'"),
    ],
)
def test_an_arm_that_does_not_fit_the_problem_is_refused_before_anything_runs(axis, wrong, tmp_path):
    with pytest.raises(ValueError, match=wrong):
        run_suite(suite(axis), tmp_path, runner=None, progress=False, jobs=2)


def test_a_problem_that_says_already_what_the_axis_is_about_is_refused():
    with pytest.raises(
        ValueError, match=r"axis 'sharing' is about sharing, which .* says: leave it out there"
    ):
        arms("sharing", problem=f"{PROBLEM}:sharing=ple@radius*2")


def test_an_axis_needs_a_budget_and_is_not_run_until_resolved(tmp_path):
    bare = Suite("s", {PROBLEM: {}}, ("equal",), (0,), {}, axis=axis_of("sharing"))
    with pytest.raises(ValueError, match="compared under a budget"):
        run_suite(bare, tmp_path, runner=None, progress=False, jobs=2)
    with pytest.raises(ValueError, match="leave the axis out"):
        run_until_resolved(bare, tmp_path, progress=False)


def test_a_suite_may_have_an_axis_of_its_own(tmp_path):
    path = tmp_path / "own.yaml"
    arms = "narrow: {hidden: 8}, wide: {hidden: 64}"
    path.write_text(f"problems: [{PROBLEM}]\naxis: {{width: {{{arms}}}}}\n")
    found = load_suite(path)
    assert found.axis == Axis("width", {"narrow": {"hidden": 8}, "wide": {"hidden": 64}})
    assert (found.strategies, found.budget) == (("equal",), "default")
    path.write_text(f"problems: [{PROBLEM}]\naxis: sharin\n")
    with pytest.raises(ValueError, match=r"line 2.*did you mean 'sharing'"):
        load_suite(path)


def test_the_command(tmp_path, capsys):
    how = ["--axis", "sharing", "--seeds", "5", "--epochs", "1", "--dry-run", "--out", str(tmp_path)]
    assert main(["bench", "-p", PROBLEM, *how]) == 0
    assert "breast_cancer: 45 runs, 45 to do" in capsys.readouterr().out  # 2 tasks alone and 7 forms
