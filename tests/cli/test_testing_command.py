"""``mtlweights test``, and a strategy of one's own through every door: by file, by module, by name."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mtlweights
from mtlweights.bench import read_results
from mtlweights.cli import main
from mtlweights.testing import CHECKS, check

OWN = '''
import numpy as np
from mtlweights.strategies import GramStrategy


class MyStrategy(GramStrategy):
    """Gives every task's gradient the same norm."""

    family = "gradient norm"
    space = {}
    scale_degree = 0
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def __init__(self, n_tasks, *, size=1.0):
        super().__init__(n_tasks)
        self.size = size

    def weights(self, gram, losses, present):
        norms = np.sqrt(np.diag(gram))
        return np.divide(self.size, norms, out=np.zeros_like(norms), where=norms > 0)
'''


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a package of one's own, installed by its entry point; what runs a command there."""
    monkeypatch.chdir(tmp_path)
    package, info = tmp_path / "my_pkg", tmp_path / "my_pkg-1.0.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "my_module.py").write_text(OWN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-pkg\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[mtlweights.strategies]\nmine = my_pkg.my_module:MyStrategy\n")
    path = os.pathsep.join([str(tmp_path), str(Path(mtlweights.__file__).parents[1])])

    def run(*argv):
        code = "import sys; from mtlweights.cli import main; sys.exit(main(sys.argv[1:]))"
        return subprocess.run(
            [sys.executable, "-c", code, *argv],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )

    return run


def test_a_strategy_of_thirty_lines_passes_every_door(own):
    assert len(OWN.strip().splitlines()) <= 30
    quick = ["--seeds", "1", "--jobs", "1", "--epochs", "1", "--device", "cpu", "-p", "breast_cancer"]
    for spec in ("my_pkg/my_module.py", "my_pkg.my_module:MyStrategy:size=2", "mine"):
        done = own("test", spec, "--tasks", "1", "3")
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
        assert re.search(rf"{len(CHECKS)} passed, 0 failed; [\d.]+ s\n", done.stdout)
    for spec in ("my_pkg.my_module:MyStrategy", "mine"):
        done = own("bench", "-s", spec, "--out", spec.partition(":")[0], *quick)
        assert done.returncode == 0, done.stdout + done.stderr
        assert {r["strategy"] for r in read_results(spec.partition(":")[0])} >= {spec}
    listed = own("list")
    assert "Gives every task's gradient the same norm." in listed.stdout


def test_the_command_says_what_failed(tmp_path, capsys):
    file = tmp_path / "two.py"
    scaled = OWN.replace("MyStrategy", "Scaled").replace("scale_degree = 0", "scale_degree = 1")
    file.write_text(OWN + scaled)
    assert main(["test", str(file), "--tasks", "2"]) == 1
    first, second = capsys.readouterr().out.split("Scaled, for 2 tasks\n")
    assert "FAIL" not in first and first.count("  pass  ") == len(CHECKS)
    assert (
        "  FAIL  scale_degree: scale_degree = 1, but: rank 1, whole numbers, 2 tasks: with losses" in second
    )
    assert f"{len(CHECKS) - 1} passed, 1 failed" in second


UNUSABLE = {
    "no such file": (None, "", "FILE: No such file or directory"),
    "syntax": ("x = 1\ndef f(:\n", "", "FILE, line 2: invalid syntax."),
    "import": ("import no_such_module_xyz\n", "", "FILE does not run: ModuleNotFoundError: No module named"),
    "any error": ("raise KeyError('a')\n", "", "FILE does not run: KeyError: 'a'"),
    "no strategy": ("x = 1\n", "", "FILE defines no subclass of LossStrategy, GramStrategy or"),
    "no such class": (OWN, ":Mine", "FILE defines no class 'Mine'. Strategies in it: MyStrategy."),
    "no method": (OWN.replace("def weights", "def weigh"), "", "MyStrategy has no method weights."),
    "no default": (OWN.replace("size=1.0", "size"), "", "MyStrategy needs arguments without defaults: size."),
    "hyperparameter": (OWN, ":sise=2", "no hyperparameter 'sise' (did you mean 'size'?). It takes: size."),
}


@pytest.mark.parametrize(("text", "suffix", "message"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_input_is_one_line(text, suffix, message, tmp_path, capsys):
    file = tmp_path / "mine.py"
    if text is not None:
        file.write_text(text)
    assert main(["test", f"{file}{suffix}"]) == 2
    said = capsys.readouterr()
    assert message.replace("FILE", str(file)) in said.err and len(said.err.splitlines()) == 1
    assert not said.out


def test_construction_that_fails_leaves_the_rest_out(capsys):
    assert main(["test", "fixed:alpha=0.3", "--tasks", "2", "3"]) == 1
    out = capsys.readouterr().out
    assert "FAIL  construction: FixedWeighting(3, alpha=0.3) raised ValueError: alpha should have 3" in out
    assert f"0 passed, 1 failed, {len(CHECKS) - 1} not run" in out


def test_check_takes_names_classes_and_files(tmp_path):
    (tmp_path / "mine.py").write_text(OWN)
    check("results", "uw", {"forms": "classification"})
    check("results", f"{tmp_path / 'mine.py'}:size=3", sizes=(2,))
    with pytest.raises(AssertionError, match=r"FixedWeighting\(1, alpha=0.3\) raised ValueError"):
        check("results", "fixed", {"alpha": 0.3})
    with pytest.raises(ValueError, match=r"No check named 'shape'\. There are: construction, "):
        check("shape", "uw")
