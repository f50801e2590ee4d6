"""DDP's options over twenty steps, and how often the ranks talk."""

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer
from tests.integrations.test_distributed import SIZES
from tests.integrations.tiny import on_ranks
from tests.toys import assert_same, assert_same_state, batch, gradients_of, named, names

NAMES = ["uw", "pcgrad", "nash_mtl", "gradnorm", "graddrop"]
OPTIONS = {
    "default": {},
    "unused": {"find_unused_parameters": True},
    "views": {"gradient_as_bucket_view": True},
}
STEPS = 20


def collectives(run):
    """All-reduces during ``run()``: the balancer's and DDP's own."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        run()
    return sum(event.name == "gloo:all_reduce" for event in profile.events())


def rank_main(rank, folder):
    out = {}
    for name in NAMES:
        for key, options in OPTIONS.items():
            model = named(unused=False)
            ddp = DistributedDataParallel(model, **options)
            balancer = Balancer(name, names(3), ddp)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.02)

            def step(seed, explicit, ddp=ddp, balancer=balancer, optimizer=optimizer):
                optimizer.zero_grad()
                losses = ddp([x.split(SIZES)[rank] for x in batch(sum(SIZES), seed=seed)])
                counts = dict.fromkeys(losses, SIZES[rank])
                if explicit:
                    balancer.backward(losses, counts)
                else:
                    balancer(losses, counts).backward()
                optimizer.step()

            for seed in range(STEPS):
                step(seed, explicit=seed % 2 == 0)
            state = {"model": {k: v.clone() for k, v in model.state_dict().items()}}
            state["balancer"] = balancer.state_dict()
            calls = [collectives(lambda e=explicit, s=step: s(99, e)) for explicit in (True, False)]
            out[f"{name}/{key}"] = state, calls
        out[f"{name}/forward per task"] = one_forward_per_task(name, rank)
    torch.save(out, f"{folder}/{rank}.pt")


def one_forward_per_task(name, rank):
    """The gradients of a backward through three forward passes of one DDP model."""
    model = named()
    ddp = DistributedDataParallel(model, find_unused_parameters=True)
    data = [x.split(SIZES)[rank] for x in batch(sum(SIZES))]
    losses = {task: loss for i in range(3) for task, loss in ddp(data, (i,)).items()}
    Balancer(name, names(3), ddp)(losses, dict.fromkeys(losses, SIZES[rank])).backward()
    return gradients_of(model)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", OPTIONS)
def test_twenty_steps_equal_one_process_and_ranks_are_bit_identical(name, key, ranks):
    first, second = (rank[f"{name}/{key}"][0] for rank in ranks)
    assert_same_state(first, second)
    model = named(unused=False)
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    for seed in range(STEPS):
        optimizer.zero_grad()
        losses = model(batch(sum(SIZES), seed=seed))
        balancer(losses, dict.fromkeys(losses, sum(SIZES))).backward()
        optimizer.step()
    for parameter, expected in model.state_dict().items():
        assert torch.allclose(first["model"][parameter], expected, rtol=1e-3, atol=1e-5), parameter


@pytest.mark.parametrize("name", NAMES)
def test_a_forward_pass_per_task_gives_the_gradients_of_one_process(name, ranks):
    model = named()
    losses = model(batch(sum(SIZES)))
    Balancer(name, names(3), model)(losses, dict.fromkeys(losses, sum(SIZES))).backward()
    for rank in ranks:
        assert_same(rank[f"{name}/forward per task"], gradients_of(model), 1e-5)


@pytest.mark.parametrize("name", ["pcgrad", "nash_mtl", "graddrop"])
@pytest.mark.parametrize("key", OPTIONS)
def test_one_collective_per_step(name, key, ranks):
    """Rows, losses and counts travel together, and DDP's reducer has nothing left to do."""
    for rank in ranks:
        assert rank[f"{name}/{key}"][1] == [1, 1]


def test_a_loss_based_step_adds_one_small_collective_to_ddp_s_own(ranks):
    for rank in ranks:
        assert rank["uw/default"][1] == [2, 2]
