"""The folder that mtlweights new-strategy writes: its tests pass, and its package gives the name."""

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from mtlweights.cli import main
from mtlweights.strategies import base, get
from mtlweights.testing import CHECKS, check

KINDS = {"loss": base.LossStrategy, "gram": base.GramStrategy, "jacobian": base.JacobianStrategy}


@pytest.mark.parametrize("kind", KINDS)
def test_the_class_keeps_the_contract(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["new-strategy", f"my_{kind}", "--kind", kind]) == 0
    assert "pytest\npip install -e .\n" in capsys.readouterr().out
    cls = get(f"my_{kind}/my_{kind}.py:My{kind.title()}")
    assert issubclass(cls, KINDS[kind])
    for name in CHECKS:
        check(name, cls, sizes=(1, 3))
    bad = {"loss": {"power": 0.5}, "gram": {"power": -1}, "jacobian": {"limit": 0}}[kind]
    with pytest.raises(ValueError, match=next(iter(bad))):
        cls(2, **bad)
    assert not any("@" in path.read_text() for path in Path(f"my_{kind}").glob("*.toml"))


def test_its_own_tests_run_and_the_entry_point_is_right(tmp_path):
    assert main(["new-strategy", "my_rule", "--out", str(tmp_path / "there")]) == 0
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "step or both_calls or resume",
    ]
    done = subprocess.run(command, cwd=tmp_path / "there", capture_output=True, text=True)
    assert done.returncode == 0 and "4 passed" in done.stdout, done.stdout
    text = (tmp_path / "there" / "pyproject.toml").read_text()
    group, line = text.partition("[project.entry-points.")[2].splitlines()[:2]
    point = metadata.EntryPoint(*line.replace('"', "").split(" = "), group.strip('"]'))
    assert (point.name, point.group, point.attr) == ("my_rule", "mtlweights.strategies", "MyRule")


@pytest.mark.parametrize(
    ("name", "pieces"),
    [("pcgrad", "taken"), ("si", "taken"), ("My-Rule", "small letters"), ("class", "'class'")],
)
def test_a_name_that_cannot_be_is_refused_before_anything_is_written(
    name, pieces, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["new-strategy", name]) == 2
    assert pieces in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_a_folder_that_is_there_is_left_alone(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("my_rule").mkdir()
    assert main(["new-strategy", "my_rule"]) == 2
    assert capsys.readouterr().err == "mtlweights: error: my_rule: File exists\n" and not list(
        Path("my_rule").iterdir()
    )
