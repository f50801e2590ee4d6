"""The documentation builds, and its made pages are whole: errors, strategies, search, llms.txt."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from snowballstemmer import stemmer

from mtlweights.strategies import get
from mtlweights.strategies.registry import ALIASES, STRATEGIES

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "docs"))
import errors  # noqa: E402
import mathml  # noqa: E402
import pages  # noqa: E402
import trajectories  # noqa: E402


def test_every_error_text_is_found_and_has_a_cure():
    """Where this fails, say in docs/cures.yaml what to do about the text that is named."""
    found = list(errors.texts())
    raises = sum(
        len(re.findall(r"^ *raise ValueError\(", path.read_text(encoding="utf-8"), re.MULTILINE))
        for path in errors.PACKAGE.rglob("*.py")
    )
    assert len(found) > 0.95 * raises > 300
    for _, text in found:
        assert len(errors.cure(text)) > 7, text
    rows = [line for line in errors.index().splitlines() if line.startswith("| ")]
    assert len(rows) >= len({text for _, text in found})


@pytest.mark.parametrize(
    "text, cure",
    [
        ("smoothing should be in [0, 1), found …", r"Give a value in \[0, 1)."),
        (
            "nn.DataParallel calls the balancer once per replica: use DistributedDataParallel, one.",
            "Use Distrib",
        ),
        ("Strategy … has no hyperparameter …. It takes: ….", "Take one of those"),
    ],
)
def test_a_cure_is_what_the_text_asks_for_or_the_list_has(text, cure):
    assert errors.cure(text).startswith(cure)
    with pytest.raises(LookupError):
        errors.cure("a text of nobody")


def test_every_strategy_has_a_rule_names_and_a_trajectory():
    assert list(pages.RULES) == list(STRATEGIES)
    for name, rule in pages.RULES.items():
        assert rule.keys() == {"title", "names", "tex", "fails"} and rule["fails"].endswith(".")
        text = pages.page(name)
        hyperparameters = [x for x in get(name).space if x != "weight_lr"]
        assert all(f"| `{x}` | `" in text for x in hyperparameters)
        assert "@" in text and "author = {" in text and 'class="toy-run"' in text
        for formula in rule["tex"].split("\n\n"):
            assert "<math" in mathml.markup(formula, "block")


def test_an_unknown_command_of_a_formula_is_an_error():
    with pytest.raises(ValueError, match="not known"):
        mathml.markup(r"\nosuchcommand x", "inline")


@pytest.mark.parametrize("name", ["equal", "nash_mtl"])
def test_the_committed_trajectories_are_those_of_the_code(name):
    """The first steps, since between opposed gradients rounding grows with every step."""
    kept = np.array(json.loads(trajectories.FILE.read_text(encoding="utf-8"))["runs"][name][0])
    steps = trajectories.path(name, trajectories.STARTS[0], 60)
    gaps = np.hypot(*(kept[:5, None] - steps[None]).transpose(2, 0, 1)).min(1)
    assert gaps.max() < 0.02


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    folders = ["-d", folder / "doctrees", ROOT / "docs", folder / "html"]
    done = subprocess.run([*command, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_each_strategy_has_its_page_and_its_name_leads_there(html):
    table = (html / "strategies.html").read_text(encoding="utf-8")
    for name in STRATEGIES:
        assert (html / "strategies" / f"{name}.html").exists() and f'href="strategies/{name}.html"' in table
    page = (html / "strategies" / "cagrad.html").read_text(encoding="utf-8")
    assert "<math" in page and "mathjax" not in page.lower() and '<svg class="toy"' in page
    assert f"strategies/{'pcgrad'}.html" in (html / "llms.txt").read_text(encoding="utf-8")


def test_search_finds_a_method_by_any_of_its_names(html):
    """Every word of a name, as the search page splits and stems it, leads to the strategy's page."""
    text = (html / "searchindex.js").read_text(encoding="utf-8")
    index = json.loads(text.removeprefix("Search.setIndex(").rstrip().removesuffix(")"))
    stem = stemmer("english").stemWord
    for name in STRATEGIES:
        number = index["docnames"].index(f"strategies/{name}")
        aliases = [alias for alias, of in ALIASES.items() if of == name]
        for known in [name, pages.RULES[name]["title"], *pages.RULES[name]["names"], *aliases]:
            for word in re.findall(r"\w{3,}", known.lower()):
                where = [index[kind].get(stem(word), []) for kind in ("terms", "titleterms")]
                places = [n for found in where for n in (found if isinstance(found, list) else [found])]
                assert number in places or word in ("and", "for", "with", "the", "one"), f"{known}: {word}"
