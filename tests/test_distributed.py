"""Two processes equal one process on the concatenated batch, and the ranks stay bit-identical."""

import os
import socket
from contextlib import nullcontext
from functools import partial

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer, strategies
from tests.toys import Toy, assert_same_state, batch, losses_of, names, toy

ALL = strategies.names()
STEPS = 3
#: case -> Balancer arguments, and tasks that rank 0 and rank 1 have
CASES = {
    "all": ({}, None, None),
    "missing": ({}, None, (0, 2)),
    "apart": ({}, (0, 1), (1, 2)),
    "plain": ({"heads": "plain"}, None, (0, 2)),
    "every": ({"every": 2}, None, (0, 2)),
    "window": ({"accumulation": "window"}, None, (0, 2)),
}
SIZES = (12, 20)


class Flexible(Toy):
    """Called through DDP, returns the losses of the tasks asked for."""

    def forward(self, data, only=None):
        return losses_of(super().forward, data, only)


def cases_of(name):
    gram = isinstance(strategies.get(name)(3), strategies.GramStrategy)
    return [case for case in CASES if case != "every" or gram]


def build():
    model = Flexible(3)
    model.load_state_dict(toy(3).state_dict())
    return model


def micro_batches(case, parts):
    """A rank's batch in pieces: two micro-batches of unequal size for "window"."""
    size = len(parts[0])
    sizes = [size - 5, 5] if case == "window" else [size]
    return list(zip(*[x.split(sizes) for x in parts], strict=True))


def backward(ddp, balancer, case, parts, only):
    pieces = micro_batches(case, parts)
    for k, piece in enumerate(pieces):
        with ddp.no_sync() if k + 1 < len(pieces) else nullcontext():
            losses = ddp(piece, only)
            loss = balancer(losses, dict.fromkeys(losses, len(piece[0])))
            (loss / len(pieces)).backward()


def rank_main(rank, port, folder):
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    out = {}
    for name in ALL:
        for case in cases_of(name):
            model = build()
            ddp = DistributedDataParallel(model, find_unused_parameters=True)
            balancer = Balancer(name, names(3), ddp, **CASES[case][0])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for step in range(STEPS):
                optimizer.zero_grad()
                parts = [x.split(SIZES)[rank] for x in batch(sum(SIZES), seed=step)]
                only = CASES[case][1 + rank]
                backward(ddp, balancer, case, parts, only)
                optimizer.step()
                if step == 0:  # the others of a method that can do with and without
                    after = partial(model, parts, only)
                    balancer.after_step(after, dict.fromkeys(after(), SIZES[rank]))
            balancer.end_epoch()
            out[f"{name}/{case}"] = {"model": dict(model.state_dict()), "balancer": balancer.state_dict()}
    torch.save(out, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(rank_main, (free_port(), str(folder)), nprocs=2)
    return [torch.load(folder / f"{rank}.pt") for rank in range(2)]


def one_process(name, case):
    """The definition: each task's mean over the items of the ranks that have it."""
    model = build()
    options = {} if case == "window" else CASES[case][0]
    balancer = Balancer(name, names(3), model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        data = batch(sum(SIZES), seed=step)
        balancer(*whole(model, data, case)).backward()
        optimizer.step()
        if step == 0:
            balancer.after_step(lambda data=data: whole(model, data, case)[0])
    return model.state_dict()


def whole(model, data, case):
    """Mean losses over the items of both ranks, and the counts."""
    sums, counts = {}, {}
    for rank in range(2):
        losses = model([x.split(SIZES)[rank] for x in data], CASES[case][1 + rank])
        for task, loss in losses.items():
            sums[task] = sums.get(task, 0) + loss * SIZES[rank]
            counts[task] = counts.get(task, 0) + SIZES[rank]
    return {task: sums[task] / counts[task] for task in sorted(sums)}, counts


@pytest.mark.parametrize("name", ALL)
def test_equals_one_process_and_ranks_agree(name, ranks):
    for case in cases_of(name):
        first, second = (r[f"{name}/{case}"] for r in ranks)
        assert_same_state(first, second)
        for key, expected in one_process(name, case).items():
            assert torch.allclose(first["model"][key], expected, rtol=1e-4, atol=2e-6), (case, key)


def test_the_case_of_a_missing_task_tells_counts_from_means(ranks):
    """Without its counts a rank's share would be wrong by far more than the tolerance above."""
    whole, part = (ranks[0][f"equal/{case}"]["model"]["encoder.0.weight"] for case in ("all", "missing"))
    assert (whole - part).abs().max() > 1e-3
