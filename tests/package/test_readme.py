"""The README and the documentation do what they say: their code runs, their tables are the registry's."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mtlweights.cli import main
from mtlweights.cli.main import parser
from mtlweights.strategies import names

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
PAGES = [
    README,
    ROOT / "CONTRIBUTING.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]

sys.path.insert(0, str(ROOT / "docs"))
import generate  # noqa: E402


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


def test_strategy_table_is_the_registrys():
    text = README.read_text(encoding="utf-8")
    assert generate.BEGIN in text and generate.END in text
    assert generate.replaced(text) == text, "run: python docs/generate.py"


def test_links_lead_somewhere():
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for target in re.findall(r"\]\(([^)#:]+)\)", prose):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_documentation_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    folders = ["-d", tmp_path / "doctrees", ROOT / "docs", tmp_path / "html"]
    done = subprocess.run([*command, *folders], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "html" / "strategies.html").read_text(encoding="utf-8")
    assert all(f'id="{name}"' in page for name in names())
