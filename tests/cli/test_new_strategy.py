"""The folder that mtlweights new-strategy writes: its tests pass, and its package gives the name."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mtlweights import __version__
from mtlweights.cli import main
from mtlweights.strategies import base, get
from mtlweights.testing import CHECKS, check
from tests.tiny import ROOT

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


def test_its_own_tests_run(tmp_path):
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


def test_its_wheel_brings_the_name(tmp_path):
    assert main(["new-strategy", "my_rule", "--out", str(tmp_path / "there")]) == 0
    code = f"from setuptools import build_meta as b; print(b.build_wheel({str(tmp_path)!r}))"
    built = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "there", capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    with zipfile.ZipFile(tmp_path / built.stdout.split()[-1]) as wheel:
        wheel.extractall(tmp_path / "installed")
    metadata = next((tmp_path / "installed").glob("*.dist-info/METADATA")).read_text()
    assert f"Requires-Dist: mtlweights>={__version__}\n" in metadata and "# my_rule\n" in metadata
    code = (
        "import mtlweights as m, torch; b = m.Balancer('my_rule', ['a'], torch.nn.Linear(1, 1), power=0.5)\n"
    )
    code += "from mtlweights.strategies.catalogue import strategies as known\n"
    code += "print(type(b.strategy).__name__, 'my_rule' in {row['name'] for row in known()})"
    paths = os.pathsep.join([str(tmp_path / "installed"), str(ROOT)])
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths}
    )
    assert done.stdout == "MyRule True\n", done.stderr


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
