"""``mtlweights tune`` as a user runs it."""

from __future__ import annotations

import pytest

from mtlweights.cli import main

QUICK = ["--fix", "epochs=1", "--fix", "layers=1"]


def tune(folder, *arguments):
    return main(["tune", "breast_cancer", "--out", str(folder), *QUICK, *arguments])


def test_a_study_from_the_command_line(tmp_path, capsys):
    space = tmp_path / "space.yaml"
    space.write_text("lr: {from: 1e-3, to: 1e-2, log: true}\nhidden: [16, 32]\ncagrad:\n  c: [0.2, 0.4]\n")
    arguments = ["-s", "cagrad", "-s", "equal", "--trials", "3", "--fresh", "1", "--space", str(space)]
    assert tune(tmp_path / "out", *arguments) == 0
    said = capsys.readouterr().out
    for line in ("trial 0: cagrad", "trial 1: equal ", "on 1 fresh seeds", "validation gain", "is ahead by"):
        assert line in said
    assert "own score" in said and str(tmp_path / "out" / "best.yaml") in said
    assert main(["report", str(tmp_path / "out")]) == 0
    assert (
        main(["bench", str(tmp_path / "out" / "best.yaml"), "--out", str(tmp_path / "out"), "--seeds", "1"])
        == 0
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-s", "cagradd"], "did you mean 'cagrad'"),
        (["-s", "cagrad", "--fix", "lrr=1"], "did you mean 'lr'"),
        (["-s", "cagrad", "--fix", "lr"], "--fix takes NAME=VALUE"),
        (["-s", "cagrad", "--limit", "speed=1"], "a limit is one of time, memory, task"),
        (["-s", "cagrad", "--limit", "time=nan"], "above 0); found time=nan"),
        (["-s", "cagrad", "--limit", "time"], "--limit takes NAME=NUMBER"),
        (["-s", "cagrad", "--fix", "uw.init=1"], "-s uw adds it"),
        (["-s", "cagrad", "--fix", "cagrad.c=5"], "cagrad:c=5: c should be at least 0"),
        (["-s", "cagrad", "--fix", "hidden=[1,2]"], "choices go into a file for --space"),
        (["-s", "cagrad", "--threads", "0"], "threads >= 1"),
        (["-s", "cagrad", "--storage", "grpc://localhost:abc"], "grpc://HOST:PORT"),
        (["-s", "cagrad", "--space", "nowhere.yaml"], "no file nowhere.yaml"),
        (["-s", "cagrad", "--storage", "nonsense"], "storage should be"),
        (["-s", "cagrad", "--trials", "0"], "trials >= 1"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, arguments, said):
    assert tune(tmp_path / "out", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_another_search_in_the_same_folder_is_refused(tmp_path, capsys):
    how = ["-s", "uw", "--trials", "1", "--fresh", "0"]
    assert tune(tmp_path, *how) == 0
    assert tune(tmp_path, *how, "--fix", "lr=0.01") == 2
    said = capsys.readouterr().err
    assert "is of another search" in said and "settings.lr: 0.001 there, 0.01 here" in said
    assert "space.loop.lr: " in said
