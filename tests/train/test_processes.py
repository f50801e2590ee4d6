"""fit over two processes: what it leaves is what one leaves, under DDP and FSDP2, whatever the strategy."""

import json
import os
from dataclasses import replace

import pytest
import torch
from test_resume import Stop, stopping
from test_train import CPU, pair, toy, with_train

from mtlweights import Balancer, strategies
from mtlweights.balancer.arguments import check_sharded
from mtlweights.train import evaluate, fit
from mtlweights.train.processes import Processes, joined
from tests.tiny import on_ranks
from tests.toys import assert_same_state

#: three batches an epoch, the last of one example: the second process has none
SETTINGS = replace(CPU, epochs=2, lr=0.01, schedule="cosine", warmup=0.3)
ALL = strategies.names()
CONTINUED = ["uw", "famo", "pcgrad", "moco"]
WINDOWS = ["uw", "mgda", "famo", "graddrop"]


def shards(name):
    """Whether the strategy goes with FSDP2."""
    try:
        check_sharded(strategies.get(name)(2), "auto")
    except ValueError:
        return False
    return True


def problem():
    """Labels of one task, of the other or of both: a batch's half may lack what its other half has."""
    whole = toy(n=17, dropout=0.0)
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


def run(name, settings=SETTINGS, folder=None, kind=Balancer, **options):
    model, balancer = pair(problem(), name, kind=kind, **options)
    history = fit(model, balancer, problem(), settings, folder=folder, progress=False)
    return outcome(model, history, balancer)


def window(name):
    return run(name, replace(SETTINGS, accumulate=2, batch_size=4), accumulation="window")


def stopped(name, folder):
    """A run that ends in its second epoch, before that one's checkpoint."""
    with pytest.raises(Stop):
        run(name, folder=folder, kind=stopping(2))


def sharded(on):
    os.environ |= {"ACCELERATE_USE_FSDP": str(on), "FSDP_VERSION": "2"}


def rank_main(rank, folder):
    out = {"refused": []}
    for how in ("DDP", "FSDP2"):
        sharded(how == "FSDP2")
        for name in ALL:
            if how == "DDP" or shards(name):
                out[f"{name}/{how}"] = run(name)
        for name in (n for n in WINDOWS if how == "DDP" or shards(n)):
            out[f"{name}/{how}/window"] = window(name)
        for name in (n for n in CONTINUED if how == "DDP" or shards(n)):
            stopped(name, f"{folder}/{name}-{how}")
            for first in ("one", how):
                out[f"{name}/{first}/{how}"] = run(name, folder=f"{folder}/{name}-{first}")
            ...
    torch.save(out, f"{folder}/{rank}.pt")
