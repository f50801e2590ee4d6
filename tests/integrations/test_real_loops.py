"""The scripts of examples/ run on real data, and balancing adds to them what the page says."""

import json
import re
import runpy
import sys

import pytest
import torch

from tests.tiny import ROOT

FOLDER, RESULTS = ROOT / "examples", ROOT / "benchmarks" / "loops"
PAGE = (ROOT / "docs" / "real_loops.md").read_text(encoding="utf-8")
RUN = runpy.run_path(str(RESULTS / "run.py"))
SCRIPTS = {"lightning_table": "uw", "trainer_tokens": "pcgrad", "plain_bert": "nash_mtl"}
STEPS = {"lightning_table": 1, "trainer_tokens": 2, "plain_bert": 1}  # of 24 examples


def run(path, monkeypatch, capsys, *options):
    """The test scores on the last line of a script's output, its model's weights, its balancer."""
    monkeypatch.setattr(sys, "argv", [str(path), "--limit", "24", "--epochs", "1", *options])
    names = runpy.run_path(str(path), run_name="__main__")
    scores = json.loads(capsys.readouterr().out.splitlines()[-1])["test"]
    model = names["trainer"].model if path.name == "trainer_tokens.py" else names["model"]
    return scores, model.state_dict(), names.get("balancer") or getattr(model, "balancer", None)


@pytest.mark.parametrize("script", SCRIPTS)
def test_as_many_lines_are_marked_as_the_page_says(script):
    text = (FOLDER / f"{script}.py").read_text(encoding="utf-8")
    stated = int(re.search(r"\*\*(\d+) lines in each script\*\*", PAGE)[1])
    assert text.count("# mtlweights\n") == text.count("# mtlweights") == stated
    assert "alancer" not in RUN["original"](text)


def test_the_page_shows_the_scripts_and_the_results_there_are():
    results = json.loads((RESULTS / "results.json").read_text(encoding="utf-8"))
    assert RUN["replaced"](PAGE, results) == PAGE
    assert RUN["table"](results) in (RESULTS / "results.md").read_text(encoding="utf-8")


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:The number of training batches:UserWarning")
@pytest.mark.parametrize("script", SCRIPTS)
def test_balanced_and_as_it_was(script, data_dir, monkeypatch, capsys, tmp_path):
    if script == "lightning_table":
        pytest.importorskip("lightning", reason="the extra [lightning] is not installed")
    path = FOLDER / f"{script}.py"
    before = tmp_path / path.name
    before.write_text(RUN["original"](path.read_text(encoding="utf-8")), encoding="utf-8")
    as_it_was, switched_off = run(before, monkeypatch, capsys), run(path, monkeypatch, capsys)
    balanced = run(path, monkeypatch, capsys, "--strategy", SCRIPTS[script])
    assert as_it_was[0] == switched_off[0] and as_it_was[2] is None and not switched_off[2]
    assert set(balanced[0]) == set(as_it_was[0])
    assert all(torch.equal(value, switched_off[1][name]) for name, value in as_it_was[1].items())
    assert not all(torch.equal(value, balanced[1][name]) for name, value in as_it_was[1].items())
    assert int(balanced[2].state_dict()["strategy"]["step"]) == STEPS[script]
