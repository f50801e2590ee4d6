"""What a release needs is in step with the package: versions, files, the tests that its script names."""

import importlib.util
import re

import mtlweights
from tests.tiny import ROOT

spec = importlib.util.spec_from_file_location("release", ROOT / ".ci" / "release.py")
release = importlib.util.module_from_spec(spec)
spec.loader.exec_module(release)


def test_the_lower_bounds_are_read():
    found = release.oldest([])
    assert [pin.partition("==")[0] for pin in found] == ["torch", "numpy", "scipy"] and "torch==2.6" in found
    of_tune = release.oldest(["tune"])
    assert set(found) < set(of_tune) and "optuna==5" in of_tune and "transformers==5.17" in of_tune


def test_the_script_names_tests_that_exist():
    for test in [*release.CORE, *(test for tests in release.OF_EXTRA.values() for test in tests)]:
        assert (ROOT / "tests" / test).exists(), test


def test_the_citation_is_of_this_version():
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", text, re.M)[1] == mtlweights.__version__


def test_files_that_a_release_carries_are_there():
    named = (ROOT / "MANIFEST.in").read_text(encoding="utf-8").split()[1:]
    assert {"SECURITY.md", "DEPRECATION.md", "CITATION.cff"} <= set(named)
    assert all((ROOT / name).exists() for name in named)
