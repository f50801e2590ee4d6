"""Digests of the code behind a result, and results of other code."""

import json

import pytest
from test_budget import in_process, knows  # noqa: F401 (the fixture is used by itself)

from mtlweights.bench import code, run_suite
from mtlweights.bench.code import library, tree_digest
from mtlweights.bench.suite import Suite


def test_comments_and_docstrings_decide_nothing():
    plain = b"def f(x):\n    return x + 1\n"
    said = b'"""A module."""\n\ndef f(x):\n    """Adds."""  # one\n    return (x +\n            1)\n'
    assert tree_digest(plain) == tree_digest(said)
    assert tree_digest(plain) != tree_digest(plain.replace(b"1", b"2"))
    assert tree_digest(b"class A:\n    x = 'text'\n") != tree_digest(b"class A:\n    x = 'other'\n")


def test_what_a_strategy_imports_is_in_its_digest_and_no_other_strategy(monkeypatch):
    before = {name: library("tagging", name) for name in ("uw", "cagrad", "mgda", "pcgrad")}
    read = code._read

    def changed(name):
        tree, imports = read(name)
        return ("changed", imports) if name == "mtlweights.strategies.gram.cagrad" else (tree, imports)

    monkeypatch.setattr(code, "_read", changed)
    after = {name: library("tagging", name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["cagrad"]
    assert before["cagrad"]["shared"] == after["cagrad"]["shared"] == before["uw"]["shared"]

    def engine(name):
        tree, imports = read(name)
        return ("changed", imports) if name == "mtlweights.gradients.graph" else (tree, imports)

    monkeypatch.setattr(code, "_read", engine)
    assert all(library("tagging", name)["shared"] != before[name]["shared"] for name in before)


def old_code(folder, keep=0):
    """Stamp results as of other code, as if the library had changed since."""
    for path in sorted((folder / "runs").glob("*.json"))[keep:]:
        content = json.loads(path.read_text())
        content["library"] = {"shared": "other", "strategy": "other"}
        content.pop("checksum")
        content["schema"] = 1
        path.write_text(json.dumps(content))


SUITE = Suite("s", {"breast_cancer": {"epochs": 1}}, ("equal", "uw"), (0, 1), {})


def shifted(spec):
    """As `knows`, under code that changed what comes out."""
    result = knows(spec)
    for scores in result["test"].values():
        for metric in scores:
            scores[metric] += 0.01
    return result


@pytest.mark.parametrize("now", [knows, shifted])
def test_results_of_other_code_are_counted_and_rechecked(tmp_path, capsys, now):
    first = run_suite(SUITE, tmp_path, runner=knows, progress=False, jobs=2)
    assert run_suite(SUITE, tmp_path, runner=None, jobs=2) == first
    old_code(tmp_path, keep=2)
    run_suite(SUITE, tmp_path, runner=None, jobs=2)
    assert "6 runs are of other code of this library: --recheck" in capsys.readouterr().err
    again = run_suite(SUITE, tmp_path, runner=now, jobs=2, check_again=2)
    said = capsys.readouterr().err
    stamps = {json.dumps(result["library"]) for result in again if result["strategy"] == "uw"}
    assert len(stamps) == 1 and "other" not in stamps.pop()
    if now is knows:
        assert "2 came out the same: all 6" in said
        assert [r["test"] for r in again] == [r["test"] for r in first]
    else:
        assert "2 of 2 come out differently" in said
        assert sum(a["test"] != b["test"] for a, b in zip(first, again, strict=True)) == 6
    assert not (tmp_path / "recheck").exists()
