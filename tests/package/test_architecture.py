"""The page on the code's layout says what is true: its map, its table, and the walk of a step."""

import importlib.util
import os
import re
import sys

import pytest
import torch

import mtlweights
from mtlweights import Balancer, strategies
from tests.tiny import ROOT
from tests.toys import batch, losses_of, names, toy

spec = importlib.util.spec_from_file_location("rooms", ROOT / "docs" / "rooms.py")
rooms = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rooms)
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
STEPS = re.findall(r"^\d\. .*?(?=^\d\. |^\n)", PAGE, re.M | re.S)
LISTED = [re.findall(r"`(balancer/[\w/]+\.py)`", step) for step in STEPS]
#: learned weights and validation gradients; several batches, and their counts
MOST = {"auto_lambda": 9, "modo": 9, "sdmgrad": 9}


def test_the_map_and_the_table_are_those_of_the_contract():
    assert rooms.DRAWING.read_text(encoding="utf-8") == rooms.drawing(), "run: python docs/rooms.py"
    assert rooms.replaced(PAGE) == PAGE, "run: python docs/rooms.py"


def test_the_top_level_has_few_entries():
    entries = {room for floor in rooms.floors() for room in floor}
    found = {
        path.stem
        for path in rooms.PACKAGE.iterdir()
        if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert found - {"__init__"} == entries and len(entries - {"__main__"}) <= 12


def test_an_import_that_runs_up_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gradients").mkdir()
    (tmp_path / "gradients" / "rows.py").write_text("from ..balancer.state import state\n")
    monkeypatch.setattr(rooms, "PACKAGE", tmp_path)
    monkeypatch.setattr(rooms, "ROOT", tmp_path.parent)
    monkeypatch.setattr(rooms, "floors", lambda: [["balancer"], ["gradients"]])
    with pytest.raises(ValueError, match=r"rows\.py imports balancer, which is not below gradients"):
        rooms.arrows()


def walked(name):
    """The files of the balancer that a step enters, in the order in which it does."""
    model, found = toy(3), {}
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    balancer.attach(optimizer)
    root = os.path.dirname(mtlweights.__file__) + os.sep

    def profile(frame, event, argument):
        path = frame.f_code.co_filename
        if event == "call" and path.startswith(root):
            found.setdefault(path.removeprefix(root).replace(os.sep, "/"), None)

    for step in range(3):
        for hook in balancer.strategy.needs:
            if hook == "end_epoch":
                balancer.end_epoch(dict.fromkeys(names(3), 0.5))
        if "validate" in balancer.hooks:
            balancer.validate(lambda: losses_of(model, batch(seed=9)))
        for k in range(balancer.strategy.batches):
            losses = losses_of(model, batch(seed=10 * step + k))
            if step == 2:
                sys.setprofile(profile)
            try:
                balancer(losses).backward()
            finally:
                sys.setprofile(None)
        if step == 2:
            sys.setprofile(profile)
        try:
            optimizer.step()
        finally:
            sys.setprofile(None)
        optimizer.zero_grad()
    return [path for path in found if path.startswith("balancer/")]


@pytest.mark.parametrize("name", strategies.names())
def test_a_step_enters_the_files_that_the_page_lists(name):
    found = walked(name)
    always = [path for step in LISTED[:7] for path in step]
    assert len(LISTED) == 8 and [len(step) for step in LISTED] == [1] * 7 + [5]
    assert set(always) <= set(found) <= set(always) | set(LISTED[7])
    assert len(found) <= MOST.get(name, 8), found
    assert found[:3] == always[:3]
