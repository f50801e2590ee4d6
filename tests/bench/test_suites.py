"""The suites of benchmarks/suites load, and their problems can be compared and tuned."""

import pytest

from mtlweights import problems
from mtlweights.bench import load_suite
from tests.tiny import ROOT

SUITES = sorted((ROOT / "benchmarks" / "suites").glob("*.yaml"))


@pytest.mark.parametrize("path", SUITES, ids=lambda path: path.stem)
def test_every_suite_loads(path):
    assert load_suite(path).problems


def test_many_problems():
    suite = load_suite(ROOT / "benchmarks" / "suites" / "many.yaml")
    assert len(suite.problems) >= 20
    left = set(problems.problems()) - set(suite.problems)
    assert left == {"toy", "census"}  # a test function, and what is not downloaded
