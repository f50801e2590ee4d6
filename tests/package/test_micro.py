"""The step benchmark runs, and its tables are whole. Nothing here looks at how long anything took."""

import math
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "micro" / "step.py"
MODELS = {"MLP": (2, 10), "BiLSTM": (2, 10), "transformer": (2, 10), "recommender": (8,)}
CELL = re.compile(r"(\S+) \((\S+) to (\S+)\)")


def call(*arguments):
    return subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True)


@pytest.fixture(scope="module")
def page():
    done = call("--quick")
    assert done.returncode == 0, done.stderr
    return done.stdout


def table(page, title):
    """Heads, and label -> cells."""
    lines = page.partition(f"\n## {title}")[2].partition("\n## ")[0].splitlines()
    cells = [[c.strip() for c in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return cells[0][1:], {row[0]: row[1:] for row in cells[2:]}


def assert_ratio(cell):
    low, middle, high = (float(CELL.fullmatch(cell)[k]) for k in (2, 1, 3))
    assert 0 < low <= middle <= high and math.isfinite(high)


def test_page_names_the_machine_and_the_versions(page):
    assert torch.__version__ in page and "1 thread" in page and "cores" in page


@pytest.mark.parametrize("model", MODELS)
def test_time_table_has_a_finite_positive_ratio_for_every_line_of_ours(page, model):
    heads, rows = table(page, f"Time, {model}")
    assert heads == ["target", *(f"T = {n}" for n in MODELS[model])]
    ours = [label for label in rows if label.endswith((" / plain", " / floor")) and "every" not in label]
    assert len(ours) == 11
    for label in ours:
        for cell in rows[label][1:]:
            assert_ratio(cell)
    every = next(cells for label, cells in rows.items() if "every=8" in label)
    assert [cell != "-" for cell in every[1:]] == [n == 2 for n in MODELS[model]]
    assert all(float(cell) > 0 for name in ("plain, ms", "floor, ms") for cell in rows[name][1:])


@pytest.mark.parametrize("model", MODELS)
def test_peers_have_a_ratio_where_they_are_installed_and_a_dash_where_not(page, model):
    rows = table(page, f"Time, {model}")[1]
    peers = {label: cells[1:] for label, cells in rows.items() if label.startswith(("TorchJD", "LibMTL"))}
    assert len(peers) == 5
    for label, cells in peers.items():
        if label.partition("'")[0].lower() in page.partition("\n\nCells")[0].lower():
            for cell in cells:
                assert_ratio(cell)
        else:
            assert set(cells) == {"-"}


@pytest.mark.parametrize(
    ("title", "some"), [("Loss-based", {"uw", "famo", "stch"}), ("Gramian", {"pcgrad", "upgrad", "epo"})]
)
def test_every_strategy_is_in_the_tables_of_the_mlp(page, title, some):
    rows = table(page, title)[1]
    assert some <= set(rows) and len(rows) > 15
    for cells in rows.values():
        assert len(cells) == 4
        assert_ratio(cells[0])
        assert_ratio(cells[2])


def test_memory_of_every_mode_and_its_exactness(page):
    heads, rows = table(page, "Peak memory")
    assert heads == list(MODELS)
    for mode in ("rows", "gramian", "auto", "features"):
        assert all(math.isfinite(float(cell)) for cell in rows[f"pcgrad, {mode}"])
    rows_mode, gramian = ([float(c) for c in rows[f"pcgrad, {mode}"]] for mode in ("rows", "gramian"))
    assert all(a > b for a, b in zip(rows_mode, gramian, strict=True))
    for label in ("Gramian, mode gramian against rows", ".grad, mode gramian against rows"):
        assert all(float(cell) < 1e-5 for cell in rows[label])
