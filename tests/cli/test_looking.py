"""The commands that only tell: list, show, cite, advise, doctor, completion."""

import json
import re
import subprocess
import sys

import pytest

from mtlweights.cli import doctor, main, timeleft
from mtlweights.strategies import GramStrategy, get, names
from mtlweights.strategies.catalogue import describe
from mtlweights.strategies.citation import bibtex


def told(capsys, *argv):
    assert main(argv) == 0
    return capsys.readouterr().out


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """No data on this machine."""
    monkeypatch.delenv("MTLWEIGHTS_DATA", raising=False)
    monkeypatch.setenv("MTLWEIGHTS_CACHE", str(tmp_path))
    return tmp_path


def test_a_line_a_strategy_and_what_each_filter_leaves(capsys):
    lines = told(capsys, "list").splitlines()
    assert [line.split()[0] for line in lines] == ["strategy", *names()]
    one = json.loads(told(capsys, "list", "--cost", "1", "--json"))
    assert {row["backward"] for row in one} == {"1"} and "uw" in {row["name"] for row in one}
    several = json.loads(told(capsys, "list", "--cost", "T", "--json"))
    assert len(one) + len(several) == len(names())
    assert {row["family"] for row in json.loads(told(capsys, "list", "--family", "loss", "--json"))} == {
        "loss"
    }
    both = told(capsys, "list", "--family", "grad", "--cost", "T at last").splitlines()
    assert [line.split()[0] for line in both] == ["strategy", "gradnorm", "vqgan"]


@pytest.mark.parametrize(
    ("argv", "pieces"),
    [
        (["list", "--family", "grammian"], ["--family", "gramian", "'grammian'"]),
        (["list", "--cost", ""], ["--cost", "T at last layer"]),
        (["show", "pcgard"], ["'pcgrad'"]),
        (["cite", "uw", "nope.py:Mine"], ["nope.py"]),
    ],
)
def test_what_cannot_be_found_is_said_in_one_line(argv, pieces, capsys):
    assert main(argv) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and all(piece in said.err for piece in pieces)


def test_a_line_is_no_longer_than_the_terminal_is_wide(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert max(map(len, told(capsys, "list").splitlines())) == 60


def test_show_has_all_of_a_strategy(capsys):
    text = told(capsys, "show", "si")
    assert "scale_invariant: " in text and re.search(r"^also +si$", text, re.M)
    assert get("scale_invariant").paper in text and "``" not in text
    text = told(capsys, "show", "uw")
    assert "init = 0.0, searched from -2 to 2" in text
    assert "weight_lr = 0.0003, searched from 1e-05 to 0.1, by decades" in text
    assert "searched: weights whose ratios are at most 100" in told(capsys, "show", "fixed")


@pytest.mark.parametrize("name", names())
def test_every_strategy_can_be_shown_and_cited(name, capsys):
    found = json.loads(told(capsys, "show", name, "--json"))
    assert (
        found["text"] == describe(name)["text"] != ""
        and found["hyperparameters"].keys() >= get(name).space.keys()
    )
    entry = bibtex(name, get(name))
    assert re.search(r"^@(misc|article|inproceedings)\{[a-z]+(19|20)\d\d[a-z0-9]+,$", entry, re.M)
    for field in ("title", "author", "year", "url"):
        assert re.search(rf"^  {field} = \{{\S.*\}},$", entry, re.M), field
    authors = re.search(r"author = \{(.*)\}", entry)[1].split(" and ")
    assert all(re.match(r"[A-Z]\.|others$", author) for author in authors)


def test_citations_of_known_papers(capsys):
    text = told(capsys, "cite", "stch", "dwa", "stch_mtl")
    assert text.count("@") == 2 and "% stch: " in text and "% stch_mtl: " in text  # one paper, once
    assert "author = {S. Liu and E. Johns and A. J. Davison}" in text
    assert "booktitle = {CVPR}" in text and "eprint = {1803.10704}" in text
    assert "journal = {IEEE Transactions on Evolutionary Computation 11(6)}" in told(capsys, "cite", "pbi")
    assert "@software{mtlweights," in told(capsys, "cite")


def test_a_strategy_of_ones_own_is_cited_from_its_docstring_or_its_paper():
    class Mine(GramStrategy):
        """Something.

        A. Author, B. van Other et al., "A Title", ICML 2031, https://example.org/paper.
        """

        paper = "Author et al. 2031, https://example.org/paper"

    assert "author = {A. Author and B. van Other and others}" in bibtex("mine", Mine)
    Mine.__doc__ = None
    assert "title = {Author et al. 2031, https://example.org/paper}" in bibtex("mine", Mine)
    Mine.paper = ""
    with pytest.raises(ValueError, match="'mine' names no paper"):
        bibtex("mine", Mine)


def test_doctor_tells_what_is_there_and_what_installs_the_rest(capsys, elsewhere, monkeypatch):
    real = doctor.metadata.version
    monkeypatch.setattr(
        doctor.metadata,
        "requires",
        lambda name: ["torch<3,>=2.6", 'tqdm<5,>=4; extra == "bench"', 'x>1; extra == "dev"'],
    )
    found = json.loads(told(capsys, "doctor", "--json"))
    assert found["base"]["torch"]["fault"] is None and found["extras"].keys() == {"bench"}
    assert found["faults"] == [] and "1 of 1 files are downloaded" in found["data"]["abalone"]
    versions = {"tqdm": None, "torch": "2.5.1"}

    def version(name):
        if versions.get(name, "") is None:
            raise doctor.metadata.PackageNotFoundError(name)
        return versions.get(name) or real(name)

    monkeypatch.setattr(doctor.metadata, "version", version)
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert "tqdm not installed" in text and 'pip install "mtlweights[bench]"' in text
    assert "wrong: torch: is 2.5.1, and should be <3,>=2.6" in text


def test_doctor_finds_a_damaged_file(capsys, elsewhere):
    (elsewhere / "abalone").mkdir()
    (elsewhere / "abalone" / "abalone.csv").write_text("M,0.4\n", encoding="utf-8")
    assert main(["doctor"]) == 1
    assert "wrong: damaged: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("version", "wanted", "fits"),
    [
        ("2.6.0", "<3,>=2.6", True),
        ("2.13.0+cpu", "<3,>=2.6", True),
        ("2.5.1", "<3,>=2.6", False),
        ("3.0.0rc1", "<3,>=2.6", False),
        ("0.1", "==0.1.0", True),
        ("7", "", True),
    ],
)
def test_a_version_of_a_range(version, wanted, fits):
    assert doctor.within(version, wanted) is fits


def test_completion_knows_commands_options_and_names(capsys, tmp_path):
    script = tmp_path / "complete.bash"
    script.write_text(told(capsys, "completion", "bash"), encoding="utf-8")
    for words, expected in {"show pcg": "pcgrad", "train abal": "abalone", "list --fam": "--family"}.items():
        line = f"source {script}; COMP_WORDS=(mtlweights {words}); COMP_CWORD=2; _shtab_mtlweights"
        done = subprocess.run(
            ["bash", "-c", f'{line}; echo "${{COMPREPLY[@]}}"'], capture_output=True, text=True
        )
        assert done.stdout.split() == [expected], done.stderr


@pytest.mark.parametrize("missing", ["shtab", "tqdm"])
def test_without_an_extra(missing, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    if missing == "shtab":
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        assert main(["completion", "bash"]) == 2
        assert 'pip install "mtlweights[completion]"' in capsys.readouterr().err
    assert list(timeleft.shown("ab", 2, "letter")) == ["a", "b"]


def test_a_bar_only_where_there_is_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(timeleft, "_SOON", 0.0)
    assert list(timeleft.shown("ab", 2, "letter")) == ["a", "b"] and capsys.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert list(timeleft.shown("ab", 2, "letter")) == ["a", "b"]
    assert "/2 [" in capsys.readouterr().err


def test_advice_of_a_problem(capsys):
    assert main(["advise", "breast_cancer", "--steps", "7", "--json", "--lr", "1e-3"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["steps"] == 7
        and len(found["strategies"]) == 3
        and found["norms"].keys() == {"diagnosis", "radius"}
    )
    assert main(["advise", "breast_cancer", "--steps", "3"]) == 0
    assert "fewer than 20 tell little" in capsys.readouterr().out
    assert main(["advise", "breast_cancer", "--steps", "0"]) == 2
    assert main(["advise", "breast_cancre"]) == 2
    assert capsys.readouterr().err.count("\n") == 2
