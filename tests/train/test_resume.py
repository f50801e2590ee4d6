"""A run that is interrupted, at whatever moment, ends as if it never was."""

import contextlib
import json
import os
import random
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_train import CPU, pair, toy, vector

from mtlweights import Balancer
from mtlweights.files import atomic
from mtlweights.train import checkpoint, evaluate, fit

# dropout, windows of unequal length, a moving learning rate: each would show in the weights
SETTINGS = replace(CPU, epochs=5, accumulate=3, schedule="cosine", warmup=0.3, seed=3)
LONG = replace(SETTINGS, epochs=10)


class Stop(Exception):
    """The interruption."""


def stopping(epoch):
    """A Balancer that stops the run in its `epoch`-th call of end_epoch, after training and scoring."""

    class Stopping(Balancer):
        ends = 0

        def end_epoch(self, validation=None):
            self.ends += 1
            if self.ends == epoch:
                raise Stop
            super().end_epoch(validation)

    return Stopping


def outcome(model, balancer, history):
    """Everything a run leaves behind, but its durations."""
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
    numpy = [x.tolist() if isinstance(x, np.ndarray) else x for x in np.random.get_state()]
    state = balancer.state_dict()
    return {
        "weights": vector(model).tolist(),
        "balancer": repr(state["strategy"]) + repr(state["moments"]),
        "rows": json.dumps(rows),
        "best": (history.best_epoch, history.best_score, history.steps),
        "torch": torch.get_rng_state().tolist(),
        "numpy": numpy,
        "python": random.getstate(),
    }


def run(problem, strategy="equal", kind=Balancer, settings=SETTINGS, **options):
    model, balancer = pair(problem, strategy, kind=kind)
    return outcome(model, balancer, fit(model, balancer, problem, settings, progress=False, **options))


@pytest.mark.parametrize("strategy", ["equal", "uw", "dwa", "gradnorm", "pcgrad", "random", "validation"])
def test_resumes_bit_for_bit(tmp_path, strategy):
    problem = toy()
    whole = run(problem, strategy)
    with pytest.raises(Stop):
        run(problem, strategy, stopping(3), folder=tmp_path)
    random.seed(99), np.random.seed(99), torch.manual_seed(99)
    assert run(problem, strategy, folder=tmp_path) == whole


def test_resumes_again_and_again(tmp_path):
    problem = toy()
    settings = replace(SETTINGS, precision="bf16")
    whole = run(problem, "uw", settings=settings)
    for _ in range(4):
        with pytest.raises(Stop):  # each attempt gets one epoch further
            run(problem, "uw", stopping(2), settings, folder=tmp_path)
    assert run(problem, "uw", settings=settings, folder=tmp_path) == whole


def test_a_finished_run_is_not_trained_again(tmp_path):
    problem = toy()
    settings = replace(SETTINGS, epochs=9, patience=1, lr=0.5)
    whole = run(problem, "uw", settings=settings, folder=tmp_path)
    epochs = len(json.loads(whole["rows"]))
    assert epochs < 9  # it stopped early: the checkpoint has to know
    before = (tmp_path / "checkpoint.pt").read_bytes()
    model, balancer = pair(problem, "uw")
    history = fit(model, balancer, problem, settings, folder=tmp_path, progress=False)
    assert outcome(model, balancer, history) == whole
    assert (tmp_path / "checkpoint.pt").read_bytes() == before
    assert history.seconds == pytest.approx(sum(row["seconds"] for row in history.rows))
    assert evaluate(model, problem, "dev", batch_size=8) == history.rows[history.best_epoch - 1]["dev"]


# SIGKILL

WORKER = """
import importlib, json, os, random, shutil, signal, sys, time
from pathlib import Path
import torch
from mtlweights.train import checkpoint
from test_resume import LONG, run, toy

problem, draw, home = toy(), random.Random(11), Path(sys.argv[1])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def train(folder):
    result = run(problem, "uw", settings=LONG, folder=folder)
    (folder / "result").write_text(repr(result))

def child(task, folder, kill_after=None):
    pid = os.fork()
    if pid == 0:
        try:
            task(folder)
        finally:
            os._exit(sys.exc_info()[0] is not None)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(pid, signal.SIGKILL)
    return os.waitpid(pid, 0)[1]

def epochs(folder):
    path = folder / checkpoint.FILE
    return len(checkpoint.load(path)["history"]["rows"]) if path.exists() else 0

def fragile(stage):
    "Train, and die at a stage of the third save."
    saves, move, write = [], os.replace, torch.save
    def replace(source, target):
        if len(saves) == 3 and stage == "written":
            die()
        move(source, target)
        if len(saves) == 3:
            die()
    def save(state, file):
        saves.append(1)
        if len(saves) == 3 and stage == "before":
            die()
        write(state, file)
        if len(saves) == 3 and stage == "half":
            file.flush()
            os.ftruncate(file.fileno(), file.tell() // 2)
            die()
    def task(folder):
        torch.save, os.replace = save, replace
        train(folder)
    return task

def outcome(folder, reached):
    ended = child(train, folder)
    files = sorted(path.name for path in folder.iterdir())
    return {"reached": reached, "ended": ended, "files": files, "result": (folder / "result").read_text()}

def loaded(folder):
    train(folder)
    (folder / "modules").write_text(" ".join(sys.modules))

def fresh(name):
    folder = home / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder

# what a first run imports, the attempts need not import again
assert child(loaded, fresh("first")) == 0
for name in (home / "first" / "modules").read_text().split():
    if name not in sys.modules and name.split(".")[0] in ("accelerate", "torch", "tqdm", "numpy"):
        importlib.import_module(name)
start = time.perf_counter()
assert child(train, fresh("first")) == 0
whole = time.perf_counter() - start

outcomes = {}
for stage in ("before", "half", "written", "moved"):
    folder = fresh(stage)
    assert child(fragile(stage), folder) == signal.SIGKILL
    outcomes[stage] = outcome(folder, [epochs(folder)])
folder, reached = fresh("random"), []
while len(reached) < 8:
    if child(train, folder, draw.uniform(0.2, 0.9) * whole) == signal.SIGKILL:
        reached.append(epochs(folder))
    else:
        folder = fresh("random")
outcomes["random"] = outcome(folder, reached)
print(json.dumps(outcomes))
"""


@pytest.fixture(scope="module")
def survivors(tmp_path_factory):
    """How runs in a process of their own ended that were killed on the way: by the moment of the kill."""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    worker = [sys.executable, "-c", WORKER, str(tmp_path_factory.mktemp("killed"))]
    done = subprocess.run(worker, capture_output=True, text=True, env={**env, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("moment", "epochs"), [("before", [2]), ("half", [2]), ("written", [2]), ("moved", [3]), ("random", None)]
)
def test_survives_sigkill(survivors, moment, epochs):
    found = survivors[moment]
    assert found["ended"] == 0
    assert found["result"] == repr(run(toy(), "uw", settings=LONG))
    assert found["files"] == ["checkpoint.pt", "result"]  # and no half-written file
    if epochs is None:
        assert len(found["reached"]) == 8 and max(found["reached"]) > 0
    else:
        assert found["reached"] == epochs


# what is refused

ROW = {"epoch": 1, "dev": {}, "weight": {}, "score": 0.0, "seconds": 0.0}


@pytest.fixture
def saved(tmp_path):
    """The folder of a run of one epoch out of five."""
    with pytest.raises(Stop):
        run(toy(), "fixed", stopping(2), folder=tmp_path)
    return tmp_path


def resume(folder, settings=SETTINGS, problem=None, **options):
    problem = problem or toy()
    model, balancer = pair(problem, options.pop("strategy", "fixed"), **options)
    return fit(model, balancer, problem, settings, folder=folder, progress=False)


def test_refuses_other_settings_by_name(saved):
    path = saved / "checkpoint.pt"
    before = path.read_bytes()

    def refusal(**changes):
        with pytest.raises(ValueError) as error:
            resume(saved, **changes)
        assert str(path) in str(error.value) and "\n" not in str(error.value)
        assert path.read_bytes() == before
        return str(error.value)

    message = refusal(settings=replace(SETTINGS, lr=0.5, clip=None))
    assert "(lr: 0.02 there, 0.5 here, clip: 1.0 there, None here)" in message
    assert "(problem: 'toy' there, 'doll' here)" in refusal(problem=replace(toy(), name="doll"))
    assert "strategy: 'FixedWeighting' there, 'EqualWeighting' here" in refusal(strategy="equal")
    assert "(strategy.alpha:" in refusal(alpha=0.3)
    swapped = replace(toy(), tasks=toy().tasks[::-1])
    assert "(balancer.tasks: ('colour', 'size') there, ('size', 'colour') here)" in refusal(problem=swapped)
    assert "(balancer.gradients: None there, 'rows' here)" in refusal(gradients="rows")
    assert "(balancer.heads: 'paper' there, 'plain' here)" in refusal(heads="plain")
    resume(saved)  # none of the refusals did harm


def test_refuses_another_model(saved):
    model = torch.nn.Sequential(toy().build())
    balancer = Balancer("fixed", ["colour", "size"], model)
    with pytest.raises(ValueError, match=r"is of another model \(.*Missing key.*\): use another folder"):
        fit(model, balancer, toy(), SETTINGS, folder=saved, progress=False)


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "flipped"])
def test_says_which_file_is_damaged(saved, damage):
    path = saved / "checkpoint.pt"
    whole = path.read_bytes()
    middle = len(whole) // 2
    weights = checkpoint.load(path)["model"]["encoder.layers.0.weight"].numpy().tobytes()
    at = whole.index(weights) + 5  # one bit of one weight
    flipped = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
    path.write_bytes({"empty": b"", "cut": whole[:middle], "garbage": b"hello", "flipped": flipped}[damage])
    with pytest.raises(
        ValueError, match=r"checkpoint.pt is damaged \(.*\): delete it to train from the start"
    ) as error:
        resume(saved)
    assert "\n" not in str(error.value)
    path.unlink()
    assert len(resume(saved).rows) == 5


ODD = {
    "another format": ({"format": 99}, "is no checkpoint of this version .*its format is 99"),
    "true is no format": ({"format": True}, r"file\.format should be int, found True"),
    "no rows": ({"history.rows": []}, "its rows are not those of 1 to 5 epochs"),
    "too many rows": ({"history.rows": [ROW] * 9}, "its rows are not those of 1 to 5 epochs"),
    "a row that is text": ({"history.rows": ["x"]}, r"history\.rows\[0\] should be dict, found 'x'"),
    "other steps": ({"history.steps": 7}, "its best epoch or its number of steps"),
    "a best epoch to come": ({"history.best_epoch": 4}, "its best epoch or its number of steps"),
    "an unknown part of the history": ({"history.more": 1}, "unexpected keyword argument 'more'"),
    "no generators": ({"rng": None}, r"file\.rng should be dict, found None"),
    "a generator that is short": (
        {"rng.torch": torch.zeros(3, dtype=torch.uint8)},
        r"rng\.torch should be \[",
    ),
    "a generator that is text": ({"rng.python": "x"}, "is of another model"),
    "best weights of nothing": ({"best": {}}, "its best weights are not those of this model"),
    "an optimizer without state": ({"optimizer.state": {}}, "the state of its optimizer is not whole"),
    "no balancer": ({"optimizer.mtlweights": None}, "is of another model"),
    "a run that is a list": ({"run": [1]}, r"file\.run should be dict"),
    "a schedule of another kind": ({"schedule": {"x": 1}}, "is of another model|KeyError"),
}


@pytest.mark.parametrize(("change", "message"), ODD.values(), ids=ODD)
def test_refuses_a_file_of_another_kind_in_one_line(saved, change, message):
    path = saved / "checkpoint.pt"
    state = checkpoint.load(path)
    for name, value in change.items():
        owner, dot, last = name.rpartition(".")
        (state[owner] if dot else state)[last] = value
    torch.save(state, path)
    with pytest.raises(ValueError, match=message) as error:
        resume(saved)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_goes_on_without_the_gpu_of_before(saved):
    state = checkpoint.load(saved / "checkpoint.pt")
    state["rng"]["cuda"] = torch.zeros(16, dtype=torch.uint8)
    torch.save(state, saved / "checkpoint.pt")
    assert len(resume(saved).rows) == 5


def test_refuses_an_optimizer_without_the_balancers_state(saved):
    state = checkpoint.load(saved / "checkpoint.pt")
    del state["optimizer"]["mtlweights"]
    torch.save(state, saved / "checkpoint.pt")
    with pytest.raises(ValueError, match="the state of its optimizer is not whole"):
        resume(saved)


def test_refuses_other_data(saved):
    problem = toy()
    problem.splits["train"][7]["targets"]["size"] += 1
    with pytest.raises(
        ValueError, match=r"of another run \(data: '\w+' there, '\w+' here\): use its data or"
    ):
        resume(saved, problem=problem)


@pytest.mark.parametrize(
    "reason", [PermissionError(13, "Permission denied"), OSError(5, "I/O error"), MemoryError()]
)
def test_a_file_that_cannot_be_read_is_not_called_damaged(saved, monkeypatch, reason):
    def read(*args, **kwargs):
        raise reason

    monkeypatch.setattr(torch, "load", read)
    with pytest.raises(type(reason)) as error:
        resume(saved)
    assert error.value is reason


def test_a_compressed_archive_is_not_unpacked(saved):
    path = saved / "checkpoint.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("checkpoint/data.pkl", b"0" * 10_000_000)
    with pytest.raises(ValueError, match=r"is damaged \(compressed, as no checkpoint is"):
        resume(saved)


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path):
    with checkpoint.held(tmp_path) as path:
        with pytest.raises(
            ValueError, match=rf"is in use: process {os.getpid()} on .* trains in it; wait"
        ) as error:
            resume(tmp_path)
        assert str(tmp_path) in str(error.value) and not path.exists()
    resume(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_runs_no_code_from_a_file(saved, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "evil"),)

    torch.save({"format": 1, "run": Evil()}, saved / "checkpoint.pt")
    with pytest.raises(ValueError, match="damaged"):
        resume(saved)
    assert not (tmp_path / "evil").exists()


def test_a_full_disk_leaves_the_last_checkpoint(saved, monkeypatch):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    before = (saved / "checkpoint.pt").read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        resume(saved)
    assert [p.name for p in saved.iterdir()] == ["checkpoint.pt"]
    assert (saved / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("torchs", [torch.save, None])
def test_a_disk_that_is_full_while_torch_writes_is_one_line(tmp_path, monkeypatch, torchs):
    """Depending on where the disk is full, torch passes the file's error on or raises one of its own."""

    def save(state, file):
        with contextlib.suppress(OSError):
            file.write(b"x")
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0\nmore lines")

    full = open("/dev/full", "wb", buffering=0)  # noqa: SIM115 (replacing closes it)
    monkeypatch.setattr(atomic, "_begin", lambda path: (full, tmp_path / "part"))
    monkeypatch.setattr(torch, "save", torchs or save)
    with pytest.raises(OSError) as error:
        checkpoint.save(tmp_path / "checkpoint.pt", {"x": torch.ones(3)})
    assert (error.value.errno, error.value.filename) == (28, str(tmp_path / "checkpoint.pt"))


def test_generators_come_back():
    state = checkpoint.rng_state()
    first = (random.random(), np.random.normal(), torch.rand(3).tolist())
    checkpoint.set_rng_state(state)
    assert (random.random(), np.random.normal(), torch.rand(3).tolist()) == first
