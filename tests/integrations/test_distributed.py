"""Two processes equal one process on the concatenated batch, and the ranks stay bit-identical."""

from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer, strategies
from tests.integrations.tiny import on_ranks
from tests.toys import Line, assert_same_state, batch, named, names, nearly_opposed

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
    "features": ({"gradients": "features"}, None, None),
}
SIZES = (12, 20)
OPPOSED = ["nash_mtl", "config", "upgrad"]


def cases_of(name):
    cls = strategies.get(name)
    if cls.batches > 1:
        return [case for case in CASES if case not in ("every", "window", "features")]
    gram = [case for case in CASES if case != "features" or name in ("mgda", "pcgrad", "nash_mtl")]
    return (
        gram if issubclass(cls, strategies.GramStrategy) else ["all", "missing", "apart", "plain", "window"]
    )


def options_of(case, model):
    """The Balancer's arguments."""
    return CASES[case][0] | ({"features": model.encoder} if case == "features" else {})


def micro_batches(parts, n):
    """A rank's batch in n pieces of unequal size."""
    sizes = [*[(len(parts[0]) - 5) // (n - 1 or 1)] * (n - 1)]
    sizes.append(len(parts[0]) - sum(sizes))
    return list(zip(*[x.split(sizes) for x in parts], strict=True))


def number(name, case):
    """Micro-batches of a step: the batches a strategy stacks, two for "window"."""
    return 2 if case == "window" else strategies.get(name).batches


def backward(ddp, balancer, pieces, only):
    for k, piece in enumerate(pieces):
        with ddp.no_sync() if k + 1 < len(pieces) else nullcontext():
            losses = ddp(piece, only)
            loss = balancer(losses, dict.fromkeys(losses, len(piece[0])))
            (loss / len(pieces)).backward()


def rank_main(rank, folder):
    out = {}
    for name in ALL:
        for case in cases_of(name):
            model = named()
            ddp = DistributedDataParallel(model, find_unused_parameters=True)
            balancer = Balancer(name, names(3), ddp, **options_of(case, model))
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for step in range(STEPS):
                optimizer.zero_grad()
                parts = [x.split(SIZES)[rank] for x in batch(sum(SIZES), seed=step)]
                only = CASES[case][1 + rank]
                held_out = [x.split(SIZES)[rank] for x in batch(sum(SIZES), seed=99)]
                balancer.validate(partial(model, held_out, (0, 1)))
                backward(ddp, balancer, micro_batches(parts, number(name, case)), only)
                optimizer.step()
                if step == 0:  # the others of a method that can do with and without
                    after = partial(model, parts, only)
                    balancer.after_step(after, dict.fromkeys(after(), SIZES[rank]))
            balancer.end_epoch()
            out[f"{name}/{case}"] = {"model": dict(model.state_dict()), "balancer": balancer.state_dict()}
    out["opposed"] = [near_opposed(name) for name in OPPOSED]
    torch.save(out, f"{folder}/{rank}.pt")


def near_opposed(name):
    ddp = DistributedDataParallel(Line(1000))
    Balancer(name, names(2), ddp, shared=[ddp.module.at])(ddp(nearly_opposed(3e-4))).backward()
    return ddp.module.at.grad


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


def one_process(name, case):
    """The definition: each task's mean over the items of the ranks that have it."""
    model = named()
    options = {} if case == "window" else options_of(case, model)
    balancer = Balancer(name, names(3), model, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        data = batch(sum(SIZES), seed=step)
        balancer.validate(lambda: held_out(model))
        n = number(name, case) if case != "window" else 1
        by_rank = [micro_batches([x.split(SIZES)[rank] for x in data], n) for rank in range(2)]
        for k in range(n):
            (balancer(*whole(model, [pieces[k] for pieces in by_rank], case)) / n).backward()
        optimizer.step()
        if step == 0:
            rest = [[x.split(SIZES)[rank] for x in data] for rank in range(2)]
            balancer.after_step(lambda rest=rest: whole(model, rest, case)[0])
    return model.state_dict()


def held_out(model):
    """Validation losses: the mean of those of the ranks."""
    data = [x.split(SIZES) for x in batch(sum(SIZES), seed=99)]
    first, second = (model([x[rank] for x in data], only=(0, 1)) for rank in range(2))
    return {task: (first[task] + second[task]) / 2 for task in first}


def whole(model, by_rank, case):
    """Mean losses over the items of both ranks, and the counts."""
    if case == "features":  # one representation: one pass
        data = [torch.cat(parts) for parts in zip(*by_rank, strict=True)]
        return model(data), dict.fromkeys(names(3), len(data[0]))
    sums, counts = {}, {}
    for rank, data in enumerate(by_rank):
        size = len(data[0])
        for task, loss in model(data, CASES[case][1 + rank]).items():
            sums[task] = sums.get(task, 0) + loss * size
            counts[task] = counts.get(task, 0) + size
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


def test_the_direction_near_opposed_gradients_is_that_of_float64(ranks):
    for k, name in enumerate(OPPOSED):
        model = Line(1000, torch.float64)
        balancer = Balancer(name, names(2), model, shared=[model.at])
        balancer(model(nearly_opposed(3e-4))).backward()
        for found in ranks:
            assert (found["opposed"][k] - model.at.grad).norm() < 1e-6 * model.at.grad.norm(), name
