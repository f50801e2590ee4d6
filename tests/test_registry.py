"""Names, dotted paths and entry points to strategy classes, and the errors they give."""

import sys

import pytest

from mtlweights import strategies
from mtlweights.strategies import Strategy
from mtlweights.strategies.pcgrad import PCGrad
from mtlweights.strategies.registry import ALIASES, STRATEGIES

BUILT_IN = list(STRATEGIES)

OWN = """
from mtlweights.strategies import LossStrategy
import numpy as np
class Halved(LossStrategy):
    "Half the sum."
    def combine(self, losses, present=None):
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
def plugin(own_module):
    """An installed distribution that registers three entry points."""
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


@pytest.mark.parametrize("what", ["", "np", "Unfinished", "LossStrategy"])
def test_what_is_no_usable_strategy_is_refused(own_module, what):
    with pytest.raises(ValueError, match=f"'own_strategies:{what}' should be a class with all methods of"):
        strategies.get(f"own_strategies:{what}")


def test_entry_points_are_listed_and_loaded(plugin):
    assert strategies.names() == [*BUILT_IN, "broken", "zz_halved"]
    assert strategies.get("zz_halved").__name__ == "Halved"


def test_entry_point_cannot_replace_a_built_in(plugin):
    assert strategies.get("pcgrad") is PCGrad


def test_broken_entry_point_names_itself_and_its_module(plugin):
    with pytest.raises(ImportError, match="module 'no_such_module_xyz' of strategy 'broken'"):
        strategies.get("broken")
