"""The programs of docs/gallery.md run, in short, and end in a number and a figure."""

import json
import re
import runpy
import sys

import pytest

from tests.problems.test_published import survey
from tests.tiny import ROOT

PAGE = (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8")
SHORT = {
    "burgers": ["--limit", "3"],
    "pinn_lbfgs": ["--limit", "2", "--points", "50"],
    "codec": ["--limit", "5"],
    "recommender": ["--limit", "300", "--epochs", "1"],
    "molecules": ["--limit", "60", "--epochs", "1"],
    "cascade": ["--limit", "60", "--epochs", "2", "--seeds", "2"],
    "task_sets": ["--limit", "60", "--epochs", "1", "--seeds", "2"],
    "meta": ["--limit", "3", "--seeds", "2", "--rows", "5"],
    "understanding": ["--limit", "20", "--epochs", "1", "--data", "tagging:hidden=4"],
    "slots": ["--limit", "40", "--epochs", "1", "--hidden", "4"],
    "sharing": ["--limit", "40", "--epochs", "1", "--seeds", "1"],
    "crf": ["--limit", "20", "--epochs", "1", "--hidden", "4"],
    "sequences": ["--limit", "20", "--epochs", "1", "--width", "16"],
    "overfitting": ["--limit", "20", "--rows", "9", "--epochs", "1", "--seeds", "2", "--data", "tagging"],
    "modalities": ["--limit", "40", "--epochs", "1", "--hidden", "4"],
}

NO_FILES = ("pinn_lbfgs", "codec", "cascade", "task_sets", "crf", "sequences", "understanding", "overfitting")


@pytest.fixture
def a_survey(tmp_path, monkeypatch):
    """Rows in the form of Census-Income, which is not downloaded."""
    (tmp_path / "census").mkdir()
    for name, rows in (("data", survey(300, 0)), ("test", survey(120, 1))):
        (tmp_path / "census" / f"census-income.{name}").write_text(rows, "utf-8")
    monkeypatch.setenv("MTLWEIGHTS_DATA", str(tmp_path))


@pytest.mark.filterwarnings("ignore:ConFIG gave a task a negative weight")
@pytest.mark.parametrize("name", SHORT)
def test_it_runs(name, request, tmp_path, monkeypatch, capsys):
    if name == "recommender":
        request.getfixturevalue("a_survey")
    elif name not in NO_FILES:
        request.getfixturevalue("data_dir")
    path, figure = ROOT / "examples" / f"{name}.py", tmp_path / "figure.png"
    monkeypatch.setattr(sys, "argv", [str(path), *SHORT[name], "--figure", str(figure)])
    runpy.run_path(str(path), run_name="__main__")
    numbers = re.findall(r"\d\.\d+", json.dumps(json.loads(capsys.readouterr().out.splitlines()[-1])))
    assert numbers and figure.stat().st_size > 1000


def test_the_page_shows_every_one_of_them():
    assert set(re.findall(r"^python examples/(\w+)\.py", PAGE, re.MULTILINE)) == set(SHORT)
    for name in SHORT.keys() - {"burgers"}:  # its figure takes minutes, and the page has none
        assert f"gallery/{name}.png" in PAGE and (ROOT / "docs" / "gallery" / f"{name}.png").exists()
