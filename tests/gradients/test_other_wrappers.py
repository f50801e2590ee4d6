"""FSDP1, tensor parallelism and DDP's join: what works there, and what is refused before ranks part."""

import warnings

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer, strategies
from tests.tiny import on_ranks
from tests.toys import batch, named, names

STEPS, SIZE = 3, 8
LOSS = [n for n in strategies.names() if issubclass(strategies.get(n), strategies.LossStrategy)]
ROWS = ["mgda", "gradnorm", "graddrop"]
#: what the balancer is given as model: the FSDP module, the model with FSDP parts, the bare model, nothing
GIVEN = ["outer", "parts", "inner", "none"]


def shard(given, original):
    """FSDP1 on the CPU, and what the balancer gets of it."""
    model = named(unused=False)
    options = {"use_orig_params": original, "device_id": torch.device("cpu")}
    if given == "parts":
        model.encoder = FullyShardedDataParallel(model.encoder, **options)
    ignored = [model.frozen, model.unused]
    outer = FullyShardedDataParallel(model, ignored_modules=ignored, **options)
    return outer, {"outer": outer, "none": None}.get(given, model)


def train(model, balancer, rank=None):
    """The optimizer's parameters as FSDP1 has them; nothing is attached to it."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        data = batch(2 * SIZE, seed=step)
        losses = model(data if rank is None else [x.split(SIZE)[rank] for x in data])
        balancer(losses).backward()
        optimizer.step()


def full(outer):
    with FullyShardedDataParallel.summon_full_params(outer):
        return {k.replace("_fsdp_wrapped_module.", ""): v.clone() for k, v in outer.state_dict().items()}


def said(action):
    try:
        action()
    except ValueError as error:
        return str(error)


class Parallel(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.heads = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        return dict(zip(names(3), self.heads(self.b(torch.tanh(self.a(x)))).square().mean(0), strict=True))


def tensor_parallel(name):
    model = Parallel()
    parallelize_module(model, init_device_mesh("cpu", (2,)), {"a": ColwiseParallel(), "b": RowwiseParallel()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, foreach=False)
    balancer = Balancer(name, names(3), model)
    for step in range(STEPS):
        optimizer.zero_grad()
        balancer(model(batch(seed=step)[0])).backward()
        optimizer.step()
    return {k: getattr(v, "full_tensor", lambda v=v: v)() for k, v in model.state_dict().items()}


def uneven(name, rank):
    """One rank has a batch more, as ``join()`` allows; the error must come before any collective hangs."""
    ddp = DistributedDataParallel(named(unused=False))
    balancer = Balancer(name, names(3), ddp)
    with ddp.join():
        for step in range(2 + rank):
            balancer(ddp(batch(seed=step))).backward()


def rank_main(rank, folder):
    warnings.simplefilter("ignore")  # FSDP1 says that it is old
    out = {}
    for original in (True, False):
        for given in GIVEN:
            for name in LOSS if given == "inner" else ["uw", "famo"]:
                outer, model = shard(given, original)
                balancer = Balancer(name, names(3), model)
                train(outer, balancer, rank)
                out[f"{name}/{given}/{original}"] = full(outer), balancer.state_dict()["strategy"]
            for name in ROWS:
                outer, model = shard(given, original)
                out[f"{name}/{given}/{original}"] = said(
                    lambda m=model, o=outer, n=name: train(o, Balancer(n, names(3), m), rank)
                )
    for name in ("uw", *ROWS):
        out[f"join/{name}"] = said(lambda n=name: uneven(n, rank))
    for name in ROWS:
        out[f"tensor/{name}"] = said(lambda n=name: tensor_parallel(n))
    out["tensor/uw"] = tensor_parallel("uw")
    torch.save(out, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("name", LOSS)
def test_loss_based_strategies_equal_one_process(name, ranks):
    model = named(unused=False)
    balancer = Balancer(name, names(3), model)
    train(model, balancer)
    state = balancer.state_dict()["strategy"]
    found = [key for key in ranks[0] if key.startswith(f"{name}/")]
    assert len(found) >= 2
    for key in found:
        for rank in ranks:
            weights, other = rank[key]
            assert int(other["step"]) == STEPS, key
            for part, value in model.state_dict().items():
                torch.testing.assert_close(weights[part], value, rtol=1e-4, atol=2e-6, msg=f"{key} {part}")
            for part, value in state.items():
                torch.testing.assert_close(other[part].to(value), value, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("given", GIVEN)
@pytest.mark.parametrize("name", ROWS)
def test_per_task_gradients_are_refused_whatever_the_balancer_was_given(name, given, ranks):
    for original in (True, False):
        for rank in ranks:
            error = rank[f"{name}/{given}/{original}"]
            assert "not to be had under FullyShardedDataParallel" in error
            assert error.endswith("shard with FSDP2 (fully_shard), use DDP, or a loss-based strategy.")


@pytest.mark.parametrize("name", ROWS)
def test_and_so_they_are_under_tensor_parallelism(name, ranks):
    for rank in ranks:
        assert "not to be had under tensor parallelism (DTensor parameters): " in rank[f"tensor/{name}"]


def test_where_loss_based_strategies_work(ranks):
    model = Parallel()
    balancer, optimizer = Balancer("uw", names(3), model), torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        balancer(model(batch(seed=step)[0])).backward()
        optimizer.step()
    for rank in ranks:
        for key, value in model.state_dict().items():
            torch.testing.assert_close(rank["tensor/uw"][key], value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", ["uw", *ROWS])
def test_join_is_refused_on_every_rank(name, ranks):
    for rank in ranks:
        assert "DistributedDataParallel.join() cannot be balanced" in rank[f"join/{name}"]
