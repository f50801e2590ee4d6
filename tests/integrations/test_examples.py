"""Every program of examples/ runs, as its first lines say; those on real data: test_real_loops.py."""

import re
import runpy
import sys

import pytest

from tests.tiny import ROOT, launch

FOLDER = ROOT / "examples"
COMMAND = re.compile(r"^ *(python|torchrun --nproc_per_node 2) examples/(\w+\.py) ?(\w*)", re.MULTILINE)
PROGRAMS = sorted(path for path in FOLDER.glob("*.py") if "--limit" not in path.read_text())
COMMANDS = [found for path in PROGRAMS for found in COMMAND.findall(path.read_text())]
#: these start processes of their own
ALONE = [c for c in COMMANDS if c[0] != "python" or c[2] == "2"]


def needs_its_extra(command):
    """Lightning and PEFT are extras: skipped where they are not installed."""
    for word, extra in (("lightning", "lightning"), ("lora", "peft"), ("sentence", "datasets")):
        if word in " ".join(command):
            pytest.importorskip(extra, reason=f"the extra [{extra}] is not installed")


def test_every_program_says_how_to_run_it():
    assert {name for _, name, _ in COMMANDS} == {path.name for path in PROGRAMS}


@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers:UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
@pytest.mark.parametrize("command", [c for c in COMMANDS if c not in ALONE], ids=" ".join)
def test_runs(command, monkeypatch, capsys):
    needs_its_extra(command)
    path = FOLDER / command[1]
    monkeypatch.setattr(sys, "argv", [str(path), *filter(None, [command[2]])])
    monkeypatch.setattr(sys, "path", [*sys.path])
    runpy.run_path(str(path), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", ALONE, ids=" ".join)
def test_runs_in_two_processes(command):
    needs_its_extra(command)
    several = {"processes": 2} if command[0] != "python" else {}
    assert launch(FOLDER / command[1], *filter(None, [command[2]]), **several)
