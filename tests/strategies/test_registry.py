"""Names, dotted paths and entry points to strategy classes, and the errors they give."""

import argparse
import json
import pickle
import sys

import pytest
import torch

from mtlweights import Balancer, strategies
from mtlweights.cli import listing
from mtlweights.strategies import Strategy, loading
from mtlweights.strategies.gram.pcgrad import PCGrad
from mtlweights.strategies.registry import ALIASES, STRATEGIES

BUILT_IN = list(STRATEGIES)

OWN = """
from mtlweights.strategies import LossStrategy, Strategy
import numpy as np
class Halved(LossStrategy):
    "Half the sum."
    def combine(self, losses, present):
        return losses.sum() / 2
class Unfinished(LossStrategy):
    "No combine."
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_strategies.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_strategies", raising=False)
    return tmp_path


@pytest.fixture
def plugin(own_module, monkeypatch):
    """An installed distribution that registers three entry points."""
    monkeypatch.setattr(loading, "_told", set())
    info = own_module / "own_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[mtlweights.strategies]\nzz_halved = own_strategies:Halved\nbroken = no_such_module_xyz:Halved\n"
        "pcgrad = own_strategies:Halved\n"
    )


def test_every_built_in_name_gives_a_strategy_class():
    assert strategies.names()[: len(BUILT_IN)] == BUILT_IN
    classes = [strategies.get(name) for name in BUILT_IN]
    assert all(issubclass(cls, Strategy) for cls in classes)
    assert len(set(classes)) == len(BUILT_IN)
    assert strategies.get("pcgrad") is PCGrad


def test_an_alias_gives_the_same_class_and_is_not_listed():
    assert strategies.get("si") is strategies.get("scale_invariant")
    for alias, name in ALIASES.items():
        assert strategies.get(alias) is STRATEGIES[name] and alias not in strategies.names()
    with pytest.raises(ValueError, match=r"No strategy named 'amlt' \(did you mean 'amtl'\?\)"):
        strategies.get("amlt")


@pytest.mark.parametrize(
    ("found", "meant"), [("CAGrad", "cagrad"), ("Nash-MTL", "nash_mtl"), ("GO4Align", "go4align")]
)
def test_a_name_as_papers_write_it_is_recognised(found, meant):
    with pytest.raises(ValueError, match=rf"did you mean '{meant}'"):
        strategies.get(found)


def test_unknown_name_says_what_was_meant_and_what_there_is():
    with pytest.raises(
        ValueError, match=r"No strategy named 'pcgard' \(did you mean 'pcgrad'\?\)\. Available: "
    ):
        strategies.get("pcgard")
    with pytest.raises(ValueError, match=r"No strategy named 'quux'\. Available: equal, fixed, random, "):
        strategies.get("quux")


def test_dotted_path_to_a_users_class(own_module):
    cls = strategies.get("own_strategies:Halved")
    assert cls.__name__ == "Halved"
    assert cls(2).n_tasks == 2


@pytest.mark.parametrize("path", ["no_such_module_xyz:Halved", ":Halved", "..x:Halved"])
def test_missing_module_is_an_import_error_naming_it(path):
    with pytest.raises(ImportError, match=r"Could not import module '.*' of strategy '.*Halved'"):
        strategies.get(path)


def test_missing_class_says_what_was_meant(own_module):
    with pytest.raises(
        ValueError, match=r"No class 'Halvd' in module 'own_strategies' \(did you mean 'Halved'\?\)"
    ):
        strategies.get("own_strategies:Halvd")


@pytest.mark.parametrize("what", ["", "np", "Unfinished", "LossStrategy", "Strategy"])
def test_what_is_no_usable_strategy_is_refused(own_module, what):
    with pytest.raises(ValueError, match=f"'own_strategies:{what}' should be a class with all methods of"):
        strategies.get(f"own_strategies:{what}")


@pytest.mark.parametrize("look", [strategies.names, lambda: strategies.get("uw")])
def test_an_entry_point_cannot_replace_a_built_in_and_is_told_so_once(plugin, look):
    with pytest.warns(
        UserWarning, match="'own_strategies:Halved' as strategy 'pcgrad', which is a built-in"
    ) as told:
        look()
        look()
    assert len(told) == 1
    assert strategies.get("pcgrad") is PCGrad
    assert strategies.names() == [*BUILT_IN, "broken", "zz_halved"]
    assert strategies.get("zz_halved").__name__ == "Halved"


def test_two_entry_points_of_one_name_are_refused(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr(loading, "_told", {"pcgrad"})
    with (tmp_path / "own_plugin-1.0.dist-info" / "entry_points.txt").open("a") as file:
        file.write("halved = own_strategies:Halved\n")
    other = tmp_path / "other" / "other-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[mtlweights.strategies]\nhalved = theirs:Other\n")
    monkeypatch.syspath_prepend(other.parent)
    with pytest.raises(ValueError, match=r"Two packages register a strategy 'halved': '\w+:\w+', '"):
        strategies.get("halved")


def test_a_class_in_a_file(tmp_path):
    (tmp_path / "beside_it.py").write_text("SHARE = 0.25\n")
    file = tmp_path / "mine.py"
    file.write_text("import beside_it\n" + OWN.replace("/ 2", "* beside_it.SHARE"))
    before = list(sys.path)
    cls = strategies.get(f"{file}:Halved")
    assert sys.path == before and "mine" not in sys.modules
    assert cls is strategies.get(f"{file}:Halved") is strategies.get(str(file))
    assert pickle.loads(pickle.dumps(cls(3))).n_tasks == 3
    assert Balancer(f"{file}:Halved", ["a", "b"]).strategy.combine(torch.ones(2), strategies.ALL) == 0.5
    file.write_text(OWN)
    assert strategies.get(f"{file}:Halved")(2).combine(torch.ones(2), strategies.ALL) == 1.0
    monkey = sys.modules.pop("beside_it")
    assert monkey.SHARE == 0.25


@pytest.mark.parametrize(
    ("text", "wanted", "message"),
    [
        (None, ":Halved", r"FILE: No such file or directory\. Expected file\.py:Class"),
        (OWN, ":Halvd", r"FILE defines no class 'Halvd' \(did you mean 'Halved'\?\)\. Strategies"),
        (OWN, ":Unfinished", "FILE: Unfinished has no method combine"),
        (OWN + "class Two(Halved):\n    pass\n", "", "name one as .*:Class: Halved, Two"),
        ("a = 1\n", "", "FILE defines no subclass of LossStrategy"),
        ("def f(:\n", ":Halved", "FILE, line 1: invalid syntax"),
        ("raise KeyError('a\\nb')\n", ":Halved", "FILE does not run: KeyError: "),
        ("import sys\nsys.exit('no')\n", ":Halved", "FILE does not run: SystemExit: no"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_line(tmp_path, text, wanted, message):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ValueError, match=message.replace("FILE", str(file))) as caught:
        strategies.get(f"{file}{wanted}")
    assert "\n" not in str(caught.value)


def test_a_module_that_does_not_run_is_an_import_error(own_module):
    (own_module / "own_broken.py").write_text("raise RuntimeError('first\\nsecond')\n")
    with pytest.raises(ImportError, match=r"module 'own_broken' of strategy 'own_broken:X': first second\.$"):
        strategies.get("own_broken:X")


@pytest.mark.parametrize("name", [None, 3, ["uw"], b"uw"])
def test_a_name_is_text(name):
    with pytest.raises(ValueError, match="A strategy's name should be text such as 'uw', found"):
        strategies.get(name)


def test_broken_entry_point_names_itself_and_its_module(plugin, monkeypatch):
    monkeypatch.setattr(loading, "_told", {"pcgrad"})
    with pytest.raises(ImportError, match="module 'no_such_module_xyz' of strategy 'broken'"):
        strategies.get("broken")


def test_the_list_leaves_out_what_cannot_be_used_and_says_so(plugin, capsys):
    assert listing.run(argparse.Namespace(json=True, family=None, cost=None)) == 0
    out, err = capsys.readouterr()
    assert [row["name"] for row in json.loads(out)] == [*BUILT_IN, "zz_halved"]
    assert err.splitlines()[0].startswith(
        "mtlweights: warning: A package registers 'own_strategies:Halved' as"
    )
    assert err.splitlines()[1].startswith(
        "mtlweights: warning: Strategy 'broken' is left out: Could not import"
    )
    assert len(err.splitlines()) == 2
