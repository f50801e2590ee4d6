"""DeepSpeed's stages on the CPU: loss-based strategies equal one process, the others are refused."""

import importlib.util
import logging
import os
import warnings

import pytest
import torch

from mtlweights import Balancer
from tests.tiny import on_ranks
from tests.toys import batch, named, names

if importlib.util.find_spec("deepspeed") is None:
    pytest.skip("deepspeed is not installed: `make test` installs it", allow_module_level=True)

STEPS, SIZE = 3, 8
WORKS, REFUSED = ["uw", "famo"], ["mgda", "gradnorm", "graddrop"]
STAGES = [0, 1, 2, 3]


def engine_of(model, stage):
    import deepspeed

    config = {
        "train_micro_batch_size_per_gpu": SIZE,
        "gradient_clipping": 0.0,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=0.05)
    return deepspeed.initialize(model=model, optimizer=optimizer, config=config, model_parameters=trained)[0]


def train(name, stage, rank, given):
    import deepspeed

    model = named(unused=False)
    before = Balancer(name, names(3), model)
    engine = engine_of(model, stage)
    balancer = {"engine": Balancer(name, names(3), engine), "before": before}[given]
    for step in range(STEPS):
        losses = engine([x.split(SIZE)[rank] for x in batch(2 * SIZE, seed=step)])
        engine.backward(balancer(losses))
        engine.step()
    params = list(model.parameters())
    with deepspeed.zero.GatheredParameters(params, enabled=stage == 3):
        return {k: p.detach().clone() for k, p in model.named_parameters()}, balancer.state_dict()["strategy"]


def rank_main(rank, folder):
    warnings.simplefilter("ignore")
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed

    deepspeed.ops.__compatible_ops__.clear()  # no kernel of its own, compiled for minutes: Gloo's all-reduce
    logging.disable(logging.CRITICAL)
    deepspeed.init_distributed(dist_backend="gloo")
    out = {}
    for stage in STAGES:
        for given in ("engine", "before"):
            for name in WORKS:
                out[f"{name}/{stage}/{given}"] = train(name, stage, rank, given)
            for name in REFUSED if given == "engine" or stage else []:
                try:
                    train(name, stage, rank, given)
                except ValueError as error:
                    out[f"{name}/{stage}/{given}"] = str(error)
    torch.save(out, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", WORKS)
def test_loss_based_strategies_equal_one_process(name, stage, ranks):
    model = named(unused=False)
    balancer, optimizer = Balancer(name, names(3), model), torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        balancer(model(batch(2 * SIZE, seed=step))).backward()
        optimizer.step()
    state = balancer.state_dict()["strategy"]
    for given in ("engine", "before"):
        for rank in ranks:
            found, other = rank[f"{name}/{stage}/{given}"]
            for key, value in model.named_parameters():
                torch.testing.assert_close(found[key], value.detach(), rtol=1e-4, atol=2e-6, msg=key)
            for key, value in state.items():
                torch.testing.assert_close(other[key].to(value), value, rtol=1e-4, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", REFUSED)
def test_per_task_gradients_are_refused(name, stage, ranks):
    for rank in ranks:
        assert (
            "Per-task gradients are not to be had under DeepSpeedEngine: " in rank[f"{name}/{stage}/engine"]
        )
        if stage:  # a balancer that was made before the engine sees it by the parameters
            error = rank[f"{name}/{stage}/before"]
            assert "Per-task gradients are not to be had under DeepSpeed ZeRO: " in error
            assert error.endswith("use DDP, or a loss-based strategy.")
