"""Four processes that do not all train one model: pairs, each process alone, and meshes of shards."""

import pickle
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

from mtlweights import Balancer
from tests.gradients.test_fsdp import shard
from tests.tiny import on_ranks
from tests.toys import assert_same_state, batch, losses_of, named, names, toy

WORLD, SIZE, STEPS = 4, 8, 3
NAMES = ["uw", "mgda", "gradnorm", "graddrop"]
#: case -> the data of which ranks a rank's model is trained on
CASES = {
    "all": lambda rank: range(WORLD),
    "pairs": lambda rank: range(2 * (rank // 2), 2 * (rank // 2) + 2),
    "pairs told": lambda rank: range(2 * (rank // 2), 2 * (rank // 2) + 2),
    "alone": lambda rank: [rank],
    "replicas of shards": lambda rank: range(WORLD),
    "pairs of shards": lambda rank: range(2 * (rank // 2), 2 * (rank // 2) + 2),
}
SHARDS = [case for case in CASES if "shards" in case]


def cases_of(name):
    return [case for case in CASES if name != "graddrop" or case not in SHARDS]


def wrapped(case, pair, alone):
    """The model as its user calls it, and the Balancer's arguments."""
    if case in SHARDS:
        whole = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))
        mesh = whole if case.startswith("replicas") else whole["inner"]
        model = shard(named(), mesh)
        return model, {"model": model} | ({} if mesh is whole else {"process_group": mesh.get_group()})
    if case == "alone":
        model = named(unused=False)
        return model, {"model": model, "process_group": alone}
    ddp = nn.parallel.DistributedDataParallel(
        named(unused=False), process_group=None if case == "all" else pair
    )
    return ddp, {"model": ddp.module, "process_group": pair} if case == "pairs told" else {"model": ddp}


def rank_main(rank, folder):
    pairs = [dist.new_group([0, 1]), dist.new_group([2, 3])]
    alone = [dist.new_group([k]) for k in range(WORLD)]
    out = {}
    for name in NAMES:
        for case in cases_of(name):
            model, options = wrapped(case, pairs[rank // 2], alone[rank])
            balancer = Balancer(name, names(3), **options)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            for step in range(STEPS):
                optimizer.zero_grad()
                losses = model([x.split(SIZE)[rank] for x in batch(WORLD * SIZE, seed=step)])
                balancer(losses).backward()
                optimizer.step()
            state = {
                k: getattr(v, "full_tensor", lambda v=v: v)() for k, v in balancer.model.state_dict().items()
            }
            out[f"{name}/{case}"] = state, balancer.state_dict()
    out["error"] = error_of_a_mesh_of_others()
    out["pickled"] = pickle.loads(pickle.dumps(Balancer("uw", names(3), process_group=alone[rank]))).tasks
    torch.save(out, f"{folder}/{rank}.pt")


def error_of_a_mesh_of_others():
    """Sharded over two of four, and the balancer has not been told."""
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("outer", "inner"))["inner"]
    model = shard(named(), mesh)
    try:
        Balancer("mgda", names(3), model)(model(batch(SIZE))).backward()
    except ValueError as error:
        return str(error)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"), world=WORLD)


def one_process(name, whose):
    model = toy(3)
    balancer = Balancer(name, names(3), model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        parts = [x.split(SIZE) for x in batch(WORLD * SIZE, seed=step)]
        data = [torch.cat([part[k] for k in whose]) for part in parts]
        balancer(losses_of(model, data)).backward()
        optimizer.step()
    return model.state_dict()


@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_balanced_over_the_processes_that_train_it(name, ranks):
    for case in cases_of(name):
        for rank in range(WORLD):
            model, state = ranks[rank][f"{name}/{case}"]
            whose = CASES[case](rank)
            assert_same_state(ranks[whose[0]][f"{name}/{case}"][1], state)
            for key, expected in one_process(name, whose).items():
                torch.testing.assert_close(
                    model[key], expected, rtol=1e-4, atol=2e-6, msg=partial("{}/{}: {}".format, case, key)
                )


def test_a_mesh_of_other_processes_is_refused_and_a_balancer_can_be_pickled(ranks):
    for rank in ranks:
        assert "sharded over 2 processes, and the balancer averages over 4: pass the mesh's" in rank["error"]
        assert list(rank["pickled"]) == names(3)


def test_something_else_is_no_group():
    with pytest.raises(ValueError, match=r"should be a torch.distributed.ProcessGroup, found list"):
        Balancer("uw", names(3), process_group=[0, 1])
