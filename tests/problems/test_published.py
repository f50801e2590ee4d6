"""Problems on published data: Mulan's tables, SNIPS and ATIS, Tox21, Census-Income."""

import csv
import gzip
import io
from dataclasses import replace

import numpy as np
import pytest
import torch

from mtlweights import Balancer, problems, train
from mtlweights.problems.data import census, molecules, mulan
from mtlweights.problems.data.utterances import read_utterances


def trained(problem, strategy="pcgrad", n=32, **settings):
    """Dev scores after an epoch on ``n`` examples a split."""
    problem = replace(problem, splits={part: rows[:n] for part, rows in problem.splits.items()})
    names = [task.name for task in problem.tasks]
    torch.manual_seed(0)
    model = problem.build()
    settings = train.Settings(**{**problem.settings, "epochs": 1, "device": "cpu", **settings})
    history = train.fit(model, Balancer(strategy, names, model), problem, settings, progress=False)
    assert np.isfinite(history.best_score)
    return history.rows[-1]["dev"]


@pytest.mark.parametrize("table", mulan.TABLES)
def test_mulan(table, data_dir):
    problem = problems.load(f"mulan:{table}")
    assert len(problem.tasks) == mulan.TABLES[table]
    assert sum(len(rows) for rows in problem.splits.values()) in range(49, 1138)
    assert all(task.metrics == ("rrmse", "rmse") and task.unit == 1 for task in problem.tasks)
    widths = {len(example["input"]) for rows in problem.splits.values() for example in rows}
    assert len(widths) == 1


def test_mulans_folds_cover_every_row_once():
    for n in (49, 103, 1137):
        parts = [mulan.folds(n, fold) for fold in range(1, 11)]
        assert sorted(row for part in parts for row in part["test"]) == list(range(n))
        for part in parts:
            assert sorted(np.concatenate(list(part.values()))) == list(range(n))


@pytest.mark.parametrize("table", ["andro", "slump", "sf1"])
def test_even_the_smallest_and_sparsest_have_ten_folds(table, data_dir):
    tests = [problems.load(f"mulan:{table}:fold={fold}").splits["test"] for fold in range(1, 11)]
    assert sum(map(len, tests)) == {"andro": 49, "slump": 103, "sf1": 323}[table]


def test_mulan_trains_in_raw_units_and_by_the_unit(data_dir):
    scores = trained(problems.load("mulan:scpf"))
    assert list(scores) == ["num_views", "num_votes", "num_comments"]
    raw, own = problems.load("mulan:jura"), problems.load("mulan:jura:units=standard,fold=2,hidden=8")
    assert [task.unit for task in own.tasks] == [task.std for task in own.tasks]
    assert raw.splits["test"] == problems.load("mulan:jura:fold=10").splits["dev"]
    assert problems.digest(raw) != problems.digest(own)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mulan:scfp", "no problem 'mulan:scfp'; did you mean 'mulan:scpf'"),
        ("mulan:scpf:fold=0", "fold should be a whole number from 1 to 10, found 0"),
        ("mulan:scpf:units=m", "units should be raw or standard, found 'm'"),
        ("mulan:scpf:epochs=3", "no option 'epochs'"),
    ],
)
def test_a_wrong_mulan_spec_is_refused(spec, message, data_dir):
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        problems.load(spec)


@pytest.mark.parametrize(
    ("name", "sizes", "n_intents"), [("snips", [13084, 700, 700], 7), ("atis", [4478, 500, 893], 26)]
)
def test_utterances(name, sizes, n_intents, data_dir):
    problem = problems.load(f"{name}:hidden=8")
    assert [len(rows) for rows in problem.splits.values()] == sizes
    slots, intent = problem.tasks
    assert slots.metrics == ("span_f1",) and intent.metrics == ("accuracy", "macro_f1")
    assert len(intent.labels) == n_intents
    for rows in problem.splits.values():
        assert all(len(row["input"]) == len(row["targets"]["slots"]) for row in rows)
    assert set(trained(problem)) == {"slots", "intent"}


def test_utterances_of_unequal_files_are_refused(tmp_path):
    paths = [tmp_path / name for name in ("seq.in", "seq.out", "label")]
    for path, text in zip(paths, ("a b\nc\n", "O O\nB-x\n", "play\nadd\n"), strict=True):
        path.write_text(text, "utf-8")
    assert read_utterances(*paths) == [
        (["a", "b"], {"slots": ["O", "O"], "intent": "play"}),
        (["c"], {"slots": ["B-x"], "intent": "add"}),
    ]
    paths[1].write_text("O O\nO O\n", "utf-8")
    with pytest.raises(ValueError, match=r"seq.out, line 2: expected 1 slots, found 2"):
        read_utterances(*paths)
    paths[2].write_text("play\n", "utf-8")
    with pytest.raises(ValueError, match=r"as many lines of words, slots and intents, found 2 in .*, 1 in"):
        read_utterances(*paths)


def test_tox21(data_dir):
    problem = problems.load("tox21:hidden=8")
    assert len(problem.tasks) == 12 and problem.tasks[0].metrics == ("auroc", "average_precision")
    molecules = [row for rows in problem.splits.values() for row in rows]
    assert len(molecules) == 7831 == len({"".join(row["input"]) for row in molecules})
    outcomes = [value for row in molecules for value in row["targets"].values()]
    known = [value for value in outcomes if value is not None]
    assert 1 - len(known) / len(outcomes) == pytest.approx(0.17, abs=0.005)
    assert np.mean(known) == pytest.approx(0.075, abs=0.005)
    assert problem.tasks[0].untrained == 0.5
    batch = problem.collate(problem.splits["train"][:32])
    assert min(batch["counts"].values()) < 32
    assert len(trained(problem, n=64)) == 12


def test_molecules_of_several_rows_are_joined(tmp_path):
    path = tmp_path / "a.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write(
            "A,B,mol_id,smiles\n1,,x,C[C@H](Cl)Br\n,0,x,C[C@H](Cl)Br\n0,1,x,C[C@H](Cl)Br\n,,y,c1%12cO\n"
        )
    assays, found = molecules.read_molecules(path)
    assert assays == ["A", "B"]
    assert found == [
        (["C", "[C@H]", "(", "Cl", ")", "Br"], {"A": "1", "B": "0"}),
        (["c", "1", "%12", "c", "O"], {"A": None, "B": None}),
    ]


def survey(n, seed):
    """Rows as the survey has them, with an income that follows from the age."""
    draw, file = np.random.default_rng(seed), io.StringIO()
    for _ in range(n):
        row = [str(draw.integers(3)) for _ in range(census.WIDTH)]
        row[0], row[4] = str(draw.integers(90)), draw.choice(["Children", "Bachelors degree(BA AB BS)"])
        row[7] = draw.choice(["Never married", "Widowed"])
        row[41] = "50000+." if int(row[0]) > 45 else "- 50000."
        file.write(", ".join(row) + "\n")
    return file.getvalue()


@pytest.fixture
def census_files(tmp_path, monkeypatch):
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path))
    (tmp_path / "census").mkdir()
    (tmp_path / "census" / "census-income.data").write_text(survey(400, 0), "utf-8")
    (tmp_path / "census" / "census-income.test").write_text(survey(200, 1), "utf-8")
    return tmp_path / "census"


def test_census(census_files):
    problem = problems.load("census:rows=300,hidden=16")
    assert {part: len(rows) for part, rows in problem.splits.items()} == {
        "train": 240,
        "dev": 60,
        "test": 100,
    }
    assert [task.name for task in problem.tasks] == ["income", "never_married", "college"]
    income = next(csv.reader(io.StringIO(survey(1, 0)), skipinitialspace=True))
    assert census.labels(income) == tuple(
        str(int(flag))
        for flag in (int(income[0]) > 45, income[7] == "Never married", income[4] != "Children")
    )
    # neither what the tasks are made of nor the weight of a row is an input
    assert len(problem.splits["train"][0]["input"]) == census.WIDTH - 4
    dev = trained(problem, n=240, epochs=5, batch_size=8, lr=1e-2)
    assert dev["income"]["auroc"] > 0.8
    again = problems.load("census:rows=300,hidden=16")
    assert (
        problems.digest(again)
        == problems.digest(problem)
        != problems.digest(problems.load("census:rows=200"))
    )


def test_a_census_that_is_not_there_or_no_census_is_refused(census_files, monkeypatch, tmp_path):
    with pytest.raises(ValueError, match="rows should be a whole number from 100, found 3"):
        problems.load("census:rows=3")
    (census_files / "census-income.test").write_text("1,2\n", "utf-8")
    with pytest.raises(ValueError, match=r"census-income.test, line 1: expected 42 cells, found 2"):
        problems.load("census:rows=300")
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path / "nowhere"))
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError, match="put the two files of UCI's Census-Income") as caught:
        problems.load("census")
    assert "\n" not in str(caught.value)
