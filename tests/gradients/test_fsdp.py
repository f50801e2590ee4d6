"""FSDP2: two processes that hold shards equal one process on the concatenated batch."""

import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from tests.tiny import on_ranks
from tests.toys import Line, batch, named, names, nearly_opposed

STEPS = 3
SIZES = (12, 20)
OPPOSED = ["nash_mtl", "config", "upgrad"]


def works(name):
    cls = strategies.get(name)
    gram = issubclass(cls, strategies.GramStrategy) and cls.batches == 1 and "validate" not in cls.hooks()
    return gram or issubclass(cls, strategies.LossStrategy)


WORKS = [name for name in strategies.names() if works(name)]
#: case -> Balancer arguments, fully_shard arguments, tasks of the steps
CASES = {
    "plain": ({}, {}, None),
    "kept": ({}, {"reshard_after_forward": False}, None),
    "heads": ({"heads": "plain"}, {}, (0, 2)),
    "every": ({"every": 2}, {}, None),
}


def cases_of(name):
    return list(CASES) if name in ("mgda", "gradnorm", "nash_mtl") else ["plain", "heads"]


def shard(model, mesh=None, **kwargs):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh("cpu", (2,)) if mesh is None else mesh
    for part in (model.encoder, *model.heads):
        fully_shard(part, mesh=mesh, **kwargs)
    return fully_shard(model, mesh=mesh, **kwargs)


def train(model, balancer, optimizer, data, counts, case):
    """Three steps; the norms that clipping saw."""
    seen = []
    for step in range(STEPS):
        optimizer.zero_grad()
        losses, weights = data(model, step, CASES[case][2])
        balancer(losses, dict.fromkeys(losses, counts) if counts else weights).backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        seen.append(float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm))
        optimizer.step()
    return seen


def rank_main(rank, folder):

    def mine(model, step, only):
        return model([x.split(SIZES)[rank] for x in batch(sum(SIZES), seed=step)], only), None

    out = {}
    for name in WORKS:
        for case in cases_of(name):
            model = shard(named(), **CASES[case][1])
            balancer = Balancer(name, names(3), model, **CASES[case][0])
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            norms = train(model, balancer, optimizer, mine, SIZES[rank], case)
            full = {k: v.full_tensor() for k, v in model.state_dict().items()}
            out[f"{name}/{case}"] = norms, full, int(balancer.strategy.step)
    out["errors"] = errors(rank)
    out["opposed"] = [near_opposed(name) for name in OPPOSED]
    torch.save(out, f"{folder}/{rank}.pt")


def near_opposed(name):
    from torch.distributed.fsdp import fully_shard

    model = fully_shard(Line(1000))
    Balancer(name, names(2), model)(model(nearly_opposed(3e-4))).backward()
    return model.at.grad.full_tensor()


def errors(rank):
    """What is refused, and a plain step after it."""
    said = {}
    calls = {
        "graddrop": lambda m: Balancer("graddrop", names(3), m),
        "features": lambda m: Balancer("mgda", names(3), m, gradients="features"),
        "missing": lambda m: Balancer("mgda", names(3), m),
    }
    for key, make in calls.items():
        model = shard(named())
        only = (0, 1 + rank) if key == "missing" else None
        try:
            make(model)(model(batch(8), only)).backward()
        except ValueError as error:
            said[key] = str(error)
    losses = model(batch(8))
    sum(losses.values()).backward()
    said["after"] = float(model.encoder[0].weight.grad.full_tensor().norm())
    model = shard(named())
    balancer = Balancer("mgda", names(3), model)
    said["twice"] = []
    for _ in range(2):
        balancer(model(batch(8))).backward()
        said["twice"].append(float(model.encoder[0].weight.grad.full_tensor().norm()))
    return said


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


def whole(model, step, only):
    data = [x.split(SIZES) for x in batch(sum(SIZES), seed=step)]
    parts = [model([x[rank] for x in data], only) for rank in range(2)]
    means = {t: sum(p[t] * n for p, n in zip(parts, SIZES, strict=True)) / sum(SIZES) for t in parts[0]}
    return means, dict.fromkeys(means, sum(SIZES))


@pytest.mark.parametrize("name", WORKS)
def test_equals_one_process(name, ranks):
    for case in cases_of(name):
        model = named()
        balancer = Balancer(name, names(3), model, **CASES[case][0])
        norms = train(model, balancer, torch.optim.SGD(model.parameters(), lr=0.05), whole, None, case)
        for rank in range(2):
            found, state, steps = ranks[rank][f"{name}/{case}"]
            assert found == pytest.approx(norms, rel=1e-4), case
            assert steps == STEPS, case
            for key, value in model.state_dict().items():
                assert torch.allclose(state[key], value, rtol=1e-4, atol=2e-6), (case, key)


def test_what_shards_cannot_do_is_refused_and_leaves_the_model_usable(ranks):
    model = named()
    sum(model(batch(8)).values()).backward()
    for rank in range(2):
        said = ranks[rank]["errors"]
        assert "GradDrop, which needs more than a Gramian" in said["graddrop"]
        assert "gradients='features' does not go with FSDP2" in said["features"]
        assert "every rank needs a loss for the same tasks" in said["missing"]
        assert said["twice"][1] == pytest.approx(2 * said["twice"][0], rel=1e-5)
        assert said["after"] == pytest.approx(model.encoder[0].weight.grad.norm().item(), rel=1e-5)


def test_the_direction_near_opposed_gradients_is_that_of_float64(ranks):
    for k, name in enumerate(OPPOSED):
        model = Line(1000, torch.float64)
        balancer = Balancer(name, names(2), model, shared=[model.at])
        balancer(model(nearly_opposed(3e-4))).backward()
        for found in ranks:
            assert (found["opposed"][k] - model.at.grad).norm() < 1e-6 * model.at.grad.norm(), name
