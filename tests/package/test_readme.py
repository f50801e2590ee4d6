"""The README and the documentation do what they say: their code runs, their tables are the registry's."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from mtlweights.cli import main
from mtlweights.cli.main import parser
from mtlweights.strategies.registry import STRATEGIES

ROOT = Path(__file__).parents[2]
README, CHINESE = ROOT / "README.md", ROOT / "README.zh.md"
PAGES = [
    README,
    CHINESE,
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

sys.path.insert(0, str(ROOT / "docs"))
import generate  # noqa: E402
import headline  # noqa: E402


def blocks(page, language):
    """A page's code blocks, each after as many blank lines as precede it: a traceback then names its line."""
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
        if match[1] == language:
            yield "\n" * (text[: match.start()].count("\n") + 1) + match[2]


def commands(page):
    """The lines of a page's command blocks, comments and those of other tools left out."""
    for block in blocks(page, ""):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "mtlweights":
                yield words[1:]


COMMANDS = [command for page in PAGES for command in commands(page)]


@pytest.mark.parametrize("page", [p for p in PAGES if list(blocks(p, "python"))], ids=lambda p: p.stem)
def test_python_blocks_run(page, tmp_path, monkeypatch):
    """In order, as one program; what it saves is not left in the clone."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": page.stem}
    for block in blocks(page, "python"):
        exec(compile(block, str(page), "exec"), namespace)


def test_short_programs_are_short_and_complete():
    page = ROOT / "docs" / "programs.md"
    found = [block.strip().splitlines() for block in blocks(page, "python")]
    assert len(found) == 6 and max(map(len, found)) < 25
    assert all(any(line.startswith("from mtlweights import Balancer") for line in own) for own in found)


def test_readme_has_code_and_commands():
    assert len(list(blocks(README, "python"))) == 1
    assert len(list(commands(README))) >= 5


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] == "list"], ids=" ".join)
def test_cheap_commands_run(command, capsys):
    """The others take minutes or files of one's own; those are parsed below and run in test_cli.py."""
    assert main(command) == 0
    assert capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_commands_parse(command):
    """Every command and option that a page names exists."""
    assert parser().parse_args(command).command == command[0]


@pytest.mark.parametrize("path, text", generate.made().items(), ids=lambda x: getattr(x, "name", ""))
def test_what_is_made_is_up_to_date(path, text):
    assert path.read_text(encoding="utf-8") == text, "run: python docs/generate.py"


def test_the_number_of_strategies_is_told():
    for path in (README, CHINESE):
        assert f" {len(STRATEGIES)} " in path.read_text(encoding="utf-8").partition("\n## ")[0]


def test_what_the_readme_says_of_the_comparison_is_true():
    """Its sentences, which no program writes; where one fails, say in both READMEs what is true now."""
    tweets, pairs = (f"{name}:encoder=frozen,hidden=32" for name in ("tweebank", "sick"))
    numbers = headline.problems()
    found = {name: headline.verdicts(number) for name, number in numbers.items()}
    assert not any(found[name]["better"] for name in ("abalone", "tagging", pairs))
    assert [found[name]["worse"] for name in ("abalone", "tagging", tweets)] == [["fixed"]] * 3
    assert not found[pairs]["worse"]

    def gains(name):
        points = {row["arm"]: row["Δm points"] for row in headline.rows(numbers[name], "against-equal")}
        sizes = sorted(float(points[arm].split()[0]) for arm in found[name]["better"])
        return len(sizes), round(sizes[0], 1), round(sizes[-1], 1)

    assert gains(tweets) == (6, 9.8, 24.1)
    assert gains("abalone@rings*100") == (3, 2.1, 2.6)
    assert gains("tagging@pos*100") == (8, 5.1, 16.5)
    assert gains(f"{tweets}@pos*100") == (7, 26.2, 61.7)
    pays = {
        name: [row["Δm %"].endswith("▲") for row in headline.rows(numbers[name], "change-against-single")]
        for name in ("abalone", "tagging", tweets)
    }
    assert all(pays["tagging"]) and not any(pays["abalone"]) and sum(pays[tweets]) == 4


def test_the_chinese_readme_keeps_step():
    """The same code, headings, figures and links, and the same names in tables, line by line."""
    texts = [path.read_text(encoding="utf-8") for path in (README, CHINESE)]
    fence = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
    assert fence.findall(texts[0]) == fence.findall(texts[1])
    prose = [fence.sub("", text) for text in texts]
    for pattern in (r"^(#+) ", r"\]\(([^)]+)\)", r"`[^`]+`"):
        first, second = (re.findall(pattern, text, re.MULTILINE) for text in prose)
        second = ["README.zh.md" if x == "README.md" else x for x in second]
        assert sorted(first) == sorted(second), pattern
    rows = [[line.count("|") for line in text.splitlines() if line.startswith("|")] for text in prose]
    assert rows[0] == rows[1]


def test_links_lead_somewhere():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
