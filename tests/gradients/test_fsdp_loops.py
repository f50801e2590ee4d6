"""FSDP2 in loops that accumulate, run in bf16, save with DCP, or step an optimizer in the backward pass."""

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.fsdp import MixedPrecisionPolicy

from mtlweights import Balancer
from tests.gradients.test_fsdp import WORKS, shard
from tests.tiny import SEVERAL, on_ranks
from tests.toys import assert_same_state, batch, named, names

NAMES = ["uw", "gradnorm", "mgda", "nash_mtl", "random"]
STEPS, SIZE = 3, 8
BF16 = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def full(model):
    return {k: getattr(v, "full_tensor", lambda v=v: v)() for k, v in model.state_dict().items()}


def accumulate(model, balancer, optimizer, rank=None):
    """Two micro-batches a step, weighted apart; the first is not reduced, as Accelerate has it."""
    for step in range(STEPS):
        optimizer.zero_grad()
        for k in range(2):
            if rank is not None:
                model.set_requires_gradient_sync(k == 1)
            data = batch(2 * SIZE, seed=10 * step + k)
            losses = model(data if rank is None else [x.split(SIZE)[rank] for x in data])
            (balancer(losses) / 2).backward()
        optimizer.step()
    return full(model)


def window(name, rank=None):
    """Micro-batches of several sizes, unequal on the two ranks, weighted once per step."""
    model = named() if rank is None else shard(named())
    n = 3 if name in SEVERAL else 2
    options = {"accumulation_steps": n} | ({} if name in SEVERAL else {"accumulation": "window"})
    balancer = Balancer(name, names(3), model, **options)
    optimizer, norms = torch.optim.SGD(model.parameters(), lr=0.05), []
    for step in range(STEPS):
        optimizer.zero_grad()
        for k in range(n):
            data = batch(12 + 4 * k, seed=10 * step + k)
            mine = data if rank is None else [x.split((5, 7 + 4 * k))[rank] for x in data]
            losses = model(mine, (0, 2) if step == 1 and k == 0 else None)
            (balancer(losses, dict.fromkeys(losses, len(mine[0]))) / n).backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 100.0)
        norms.append(float(getattr(norm, "full_tensor", lambda norm=norm: norm)()))
        optimizer.step()
    return full(model), norms, balancer.state_dict()["strategy"]


def train(model, balancer, optimizer, rank=None, start=0):
    for step in range(start, start + STEPS):
        optimizer.zero_grad()
        data = batch(2 * SIZE, seed=step)
        balancer(model(data if rank is None else [x.split(SIZE)[rank] for x in data])).backward()
        optimizer.step()
    return full(model)


def resumed(name, folder, rank):
    """Saved with DCP and loaded into fresh objects: what the whole run and the resumed one end with."""
    ends = []
    for again in (False, True):
        model = shard(named(unused=False))
        balancer = Balancer(name, names(3), model)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        if not again:
            train(model, balancer, optimizer, rank)
        parts = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
        parts["balancer"] = balancer  # DCP asks it for its state, and gives it back
        if again:
            dcp.load(parts, checkpoint_id=folder)
            set_state_dict(
                model, optimizer, model_state_dict=parts["model"], optim_state_dict=parts["optimizer"]
            )
        else:
            dcp.save(parts, checkpoint_id=folder)
        ends.append(
            {"model": train(model, balancer, optimizer, rank, STEPS), "balancer": balancer.state_dict()}
        )
    return ends


def in_backward(name, rank=None):
    """Every parameter is stepped as soon as it has its gradient; how often each was."""
    model = named(unused=False) if rank is None else shard(named(unused=False))
    balancer, calls = Balancer(name, names(3), model), {}
    for key, param in model.named_parameters():
        if not param.requires_grad:
            continue
        optimizer = torch.optim.SGD([param], lr=0.05)

        def step(param, key=key, optimizer=optimizer):
            calls[key] = calls.get(key, 0) + 1
            optimizer.step()
            optimizer.zero_grad()

        param.register_post_accumulate_grad_hook(step)
    for k in range(STEPS):
        data = batch(2 * SIZE, seed=k)
        balancer(model(data if rank is None else [x.split(SIZE)[rank] for x in data])).backward()
    return full(model), calls


def rank_main(rank, folder):
    out = {f"{name}/window": window(name, rank) for name in [*WORKS, *SEVERAL]}
    for name in NAMES:
        for case, run, options in (("sync", accumulate, {}), ("bf16", train, {"mp_policy": BF16})):
            model = shard(named(unused=False), **options)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
            out[f"{name}/{case}"] = run(model, Balancer(name, names(3), model), optimizer, rank)
        out[f"{name}/dcp"] = resumed(name, f"{folder}/{name}", rank)
        out[f"{name}/hooks"] = in_backward(name, rank)
    torch.save(out, f"{folder}/{rank}.pt")


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_ranks(rank_main, tmp_path_factory.mktemp("ranks"))


def alone(name, run):
    model = named(unused=False)
    return run(model, Balancer(name, names(3), model), torch.optim.SGD(model.parameters(), lr=0.05))


@pytest.mark.parametrize("name", [*WORKS, *SEVERAL])
def test_a_window_equals_one_process(name, ranks):
    expected, norms, state = window(name)
    for rank in ranks:
        found, theirs, other = rank[f"{name}/window"]
        assert theirs == pytest.approx(norms, rel=1e-4)
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-6)
        for key, value in state.items():
            torch.testing.assert_close(other[key].to(value), value, rtol=1e-3, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_micro_batch_that_the_loop_does_not_reduce(name, ranks):
    expected = alone(name, accumulate)
    for rank in ranks:
        for key, value in expected.items():
            torch.testing.assert_close(rank[f"{name}/sync"][key], value, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_in_bf16(name, ranks):
    start, expected = full(named(unused=False)), alone(name, train)
    for rank in ranks:
        found, moved = (
            torch.cat([(part[key] - start[key]).flatten() for key in start])
            for part in (rank[f"{name}/bf16"], expected)
        )
        assert (found - moved).norm() <= 0.05 * moved.norm()
        assert_same_state(rank[f"{name}/bf16"], ranks[0][f"{name}/bf16"])


@pytest.mark.parametrize("name", NAMES)
def test_saved_and_loaded_with_dcp_bit_for_bit(name, ranks):
    for rank in ranks:
        whole, again = rank[f"{name}/dcp"]
        assert_same_state(again, whole)
        assert int(whole["balancer"]["strategy"]["step"]) == 2 * STEPS


@pytest.mark.parametrize("name", NAMES)
def test_an_optimizer_that_steps_in_the_backward_pass(name, ranks):
    """Once per parameter and step, with the step's gradient and not a task's; as the unsharded model does."""
    expected, calls = in_backward(name)
    assert set(calls.values()) == {STEPS} and len(calls) == 10
    plain = alone(name, train)
    for key, value in expected.items():
        torch.testing.assert_close(value, plain[key], rtol=1e-4, atol=2e-6)
    for rank in ranks:
        found, theirs = rank[f"{name}/hooks"]
        assert theirs == calls
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=2e-6)
