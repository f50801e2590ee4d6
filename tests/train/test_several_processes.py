"""fit over two processes leaves what one leaves, under DDP and FSDP2, whatever the strategy."""

import math
import os
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from test_resume import Stop, stopping
from test_train import CPU, pair, toy, with_train
from torch.distributed.fsdp import FSDPModule

from mtlweights import Balancer, strategies
from mtlweights.balancer.arguments import check_sharded
from mtlweights.train import evaluate, fit
from mtlweights.train.batches import Share
from mtlweights.train.processes import Processes, joined
from mtlweights.train.sharding import unsharded
from tests.tiny import on_ranks
from tests.toys import assert_same_state

#: three batches an epoch, the last of one example: the second process has none
SETTINGS = replace(CPU, epochs=2, lr=0.01, schedule="cosine", warmup=0.3)
ALL = strategies.names()
CONTINUED = ["uw", "famo", "pcgrad", "moco"]
WINDOWS = ["uw", "mgda", "famo", "graddrop"]
HALF = ["uw", "pcgrad"]
DROPOUT = replace(SETTINGS, epochs=3, patience=2)


def goes(name, how):
    """Whether the strategy goes with DDP, as all do, or FSDP2."""
    try:
        check_sharded(strategies.get(name)(2), "auto")
    except ValueError:
        return how == "DDP"
    return True


def problem(dropout=0.0):
    """Labels of one task, of the other or of both: a batch's half may lack what its other half has."""
    whole = toy(n=17, dropout=dropout)
    examples = [dict(e, targets=dict(e["targets"])) for e in whole.splits["train"]]
    for k, example in enumerate(examples):
        if k % 3:
            del example["targets"]["colour" if k % 3 == 1 else "size"]
    return with_train(whole, examples)


def outcome(model, history, balancer):
    """What a run leaves, whole."""
    weights = {name: getattr(p, "full_tensor", lambda p=p: p)() for name, p in model.state_dict().items()}
    rows = [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows]
    best = history.best_epoch, history.best_score, history.steps
    return {"weights": weights, "rows": rows, "best": best, "balancer": balancer.state_dict()["strategy"]}


def run(name, settings=SETTINGS, folder=None, kind=Balancer, dropout=0.0, **options):
    # AdaTask adds gradients of length one: where two cancel, rounding alone decides, and Adam follows it
    data = problem(dropout).only("size") if name == "adatask" else problem(dropout)
    model, balancer = pair(data, name, kind=kind, **options)
    history = fit(model, balancer, data, settings, folder=folder, progress=False)
    return outcome(model, history, balancer)


def stopped(folder, name, settings=SETTINGS, epoch=2, dropout=0.0):
    """A run that ends in an epoch, before that one's checkpoint."""
    with pytest.raises(Stop):
        run(name, settings, folder, stopping(epoch), dropout)


def window(name):
    return run(name, replace(SETTINGS, accumulate=2, batch_size=4), accumulation="window")


def said(action):
    """The error that ``action()`` raises."""
    with pytest.raises((ValueError, FloatingPointError)) as error:
        action()
    assert "\n" not in str(error.value)
    return str(error.value)


# in each of the two processes


def rank_main(rank, folder):
    out = {}
    for how in ("DDP", "FSDP2"):
        os.environ |= {"ACCELERATE_USE_FSDP": str(how == "FSDP2"), "FSDP_VERSION": "2"}
        out |= {f"{name}/{how}": run(name) for name in ALL if goes(name, how)}
        out |= {f"{name}/{how}/window": window(name) for name in WINDOWS if goes(name, how)}
        out |= {f"{name}/{how}/bf16": run(name, replace(SETTINGS, precision="bf16")) for name in HALF}
        for name in (n for n in CONTINUED if goes(n, how)):
            out[f"{name}/{how}/resumed"] = run(name, folder=f"{folder}/{name}-one-{how}")
            stopped(f"{folder}/{name}-{how}", name)
        out[f"whole/{how}"] = run("uw", DROPOUT, dropout=0.3)
        stopped(f"{folder}/dropout-{how}", "uw", DROPOUT, dropout=0.3)
        out[f"again/{how}"] = run("uw", DROPOUT, f"{folder}/dropout-{how}", dropout=0.3)
        out[f"scores/{how}"] = scores(how)
        out[f"said/{how}"] = refusals(rank, how)
    torch.save(out, f"{folder}/{rank}.pt")


def scores(how):
    """Of a model that fit has left, by all and by each."""
    model, balancer = pair(problem(), "uw")
    fit(model, balancer, problem(), SETTINGS, progress=False)
    assert isinstance(model, FSDPModule) == (how == "FSDP2")
    sizes = (7, 10, 30)  # the test split in 5 batches, in 3, in one
    shared = [evaluate(model, problem(), "test", batch_size=n, processes=joined()) for n in sizes]
    whole, alone = (
        unsharded(model, problem().build),
        [evaluate(model, problem(), "test", batch_size=n) for n in sizes],
    )
    assert (whole is model) == (how == "DDP")
    return shared, alone, evaluate(whole, problem(), "test", batch_size=sizes[0])


def refusals(rank, how):
    """What fit says in this process."""
    whole = problem()
    infinite = [dict(e, targets={**e["targets"], "size": math.inf}) for e in whole.splits["train"][:1]]
    bad = with_train(whole, [*infinite, *whole.splits["train"][1:]])
    calls = {
        "small": lambda: run("uw", replace(SETTINGS, batch_size=1)),
        "other": lambda: run("uw", replace(SETTINGS, seed=rank)),
        "infinite": lambda: fit(*pair(bad, "uw"), bad, SETTINGS, progress=False),
    }
    if how == "FSDP2":
        calls["graddrop"] = lambda: run("graddrop")
        calls["hidden"] = lambda: fit(*hiding(), whole, SETTINGS, progress=False)
    return {key: said(call) for key, call in calls.items()}


def hiding():
    """A model whose output FSDP2 cannot look into, and its balancer."""
    model, balancer = pair(problem(), "uw")
    forward = model.forward
    model.forward = lambda *batch: SimpleNamespace(**forward(*batch)._asdict())
    return model, balancer


# beside one process


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for name in CONTINUED:
        stopped(folder / f"{name}-one-DDP", name)
        shutil.copytree(folder / f"{name}-one-DDP", folder / f"{name}-one-FSDP2")
    first, second = on_ranks(rank_main, folder)
    return first, second, folder


def assert_alike(found, expected, loose=1.0):
    for key, value in expected["weights"].items():
        torch.testing.assert_close(found["weights"][key], value, rtol=1e-5 * loose, atol=1e-6 * loose)
    epoch, score, steps = expected["best"]
    assert found["best"] == (epoch, pytest.approx(score, rel=1e-5 * loose), steps)
    for row, like in zip(found["rows"], expected["rows"], strict=True):
        assert row["seen"] == like["seen"]
        for part in ("train", "weight"):
            assert row[part] == pytest.approx(like[part], rel=1e-4 * loose, abs=1e-5, nan_ok=True)
        for task, values in like["dev"].items():
            assert row["dev"][task] == pytest.approx(values, rel=1e-5 * loose)


def check(ranks, key, expected, loose=1.0):
    first, second, _ = ranks
    assert_same_state(first[key], second[key])
    assert_alike(first[key], expected, loose)


@pytest.mark.filterwarnings("ignore:(AdaTask|MConFIG) scales")
@pytest.mark.parametrize("name", ALL)
def test_two_processes_equal_one(name, ranks):
    expected = run(name)
    start = dict(pair(problem(), name)[0].named_parameters())
    moved = [(expected["weights"][k] - p).abs().max() for k, p in start.items() if k in expected["weights"]]
    assert max(moved) > 1e-3
    for how in ("DDP", "FSDP2"):
        if goes(name, how):
            check(ranks, f"{name}/{how}", expected)


@pytest.mark.parametrize("name", WINDOWS)
def test_a_window_equals_one_process(name, ranks):
    for how in ("DDP", "FSDP2"):
        if goes(name, how):
            check(ranks, f"{name}/{how}/window", window(name))


@pytest.mark.parametrize("name", HALF)
def test_bf16_is_that_of_one_process(name, ranks):
    expected = run(name, replace(SETTINGS, precision="bf16"))
    assert (
        expected["weights"]["encoder.layers.0.weight"] != run(name)["weights"]["encoder.layers.0.weight"]
    ).any()
    for how in ("DDP", "FSDP2"):
        check(ranks, f"{name}/{how}/bf16", expected, loose=300)


@pytest.mark.parametrize("name", CONTINUED)
def test_goes_on_over_another_number_of_processes(name, ranks):
    expected, folder = run(name), ranks[2]
    for how in ("DDP", "FSDP2"):
        if goes(name, how):
            check(ranks, f"{name}/{how}/resumed", expected)
            assert_alike(run(name, folder=folder / f"{name}-{how}"), expected)


def test_goes_on_over_the_same_number_bit_for_bit(ranks):
    for rank in ranks[:2]:
        for how in ("DDP", "FSDP2"):
            assert_same_state(rank[f"again/{how}"], rank[f"whole/{how}"])


def test_scores_are_those_of_the_whole_split(ranks):
    for rank in ranks[:2]:
        for how in ("DDP", "FSDP2"):
            shared, alone, _ = rank[f"scores/{how}"]
            assert shared == alone == ranks[0][f"scores/{how}"][0]
            assert ranks[0][f"scores/{how}"][2] == shared[0]


def test_all_processes_say_the_same(ranks):
    for how in ("DDP", "FSDP2"):
        first, second = (rank[f"said/{how}"] for rank in ranks[:2])
        assert first == second
        assert "batch_size=1 is for all processes together, and there are 2" in first["small"]
        assert "process 1 differs from process 0 in seed" in first["other"]
        assert "loss of task 'size' is NaN or infinite from step" in first["infinite"]
    assert "GradDrop, which needs more than a Gramian" in first["graddrop"]
    assert "found SimpleNamespace" in first["hidden"]


# in one process


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_the_shares_of_a_batch_make_the_batch(number):
    whole = problem()
    for size in range(1, 9):
        examples = whole.splits["train"][:size]
        batch = whole.collate(examples)
        shares = [Share(whole, Processes(rank, number))(examples) for rank in range(number)]
        for name, count in batch["counts"].items():
            assert sum(int(share["counts"][name]) for share in shares) == count
            items = [x for share in shares for x in share["targets"][name].tolist()]
            labelled = sorted(x for x in items if x == x and x != -100)
            assert labelled == sorted(x for x in batch["targets"][name].tolist() if x == x and x != -100)
        assert all(share["targets"].keys() == batch["targets"].keys() for share in shares)
        inputs = [share["inputs"] for share in shares if any(int(n) for n in share["counts"].values())]
        assert sum(len(next(iter(x.values()))) for x in inputs) == size


def test_other_ways_of_accelerate_are_refused(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert "Accelerate is set to FSDP1" in said(lambda: run("uw"))
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert "Accelerate is set to DeepSpeed" in said(lambda: run("uw"))
