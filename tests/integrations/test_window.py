"""accumulation="window": k micro-batches are one big batch, whatever the strategy."""

import pytest
import torch

from mtlweights import Balancer, strategies
from tests.toys import assert_same, batch, gradients_of, losses_of, names, toy

#: those that stack batches always have a window: tests/test_rows.py
ALL = [name for name in strategies.names() if strategies.get(name).batches == 1]
pytestmark = pytest.mark.usefixtures("no_accelerator")
SIZES = (3, 7, 4, 10)
#: tasks that each micro-batch has
HOLES = (None, (0, 1), None, (1, 2))


def pieces(seed, dtype=torch.float32):
    return list(zip(*[x.split(SIZES) for x in batch(sum(SIZES), seed, dtype)], strict=True))


def whole_of(model, seed, holes):
    """Each task's mean over the items of all micro-batches that have it."""
    parts = pieces(seed, torch.float64)
    sums, counts = {}, {}
    for part, only, size in zip(parts, holes, SIZES, strict=True):
        for task, loss in losses_of(model, part, only).items():
            sums[task] = sums.get(task, 0) + loss * size
            counts[task] = counts.get(task, 0) + size
    return {task: sums[task] / counts[task] for task in sorted(sums)}, counts


@pytest.mark.parametrize("path", ["call", "backward"])
@pytest.mark.parametrize("name", ALL)
def test_equals_one_big_batch(name, path):
    models = toy(3, dtype=torch.float64), toy(3, dtype=torch.float64)
    balancers = (
        Balancer(name, names(3), models[0], accumulation="window", accumulation_steps=4),
        Balancer(name, names(3), models[1]),
    )
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.05) for m in models]
    for step, holes in enumerate([(None,) * 4, HOLES, HOLES]):
        for optimizer in optimizers:
            optimizer.zero_grad()
        for data, only, size in zip(pieces(step, torch.float64), holes, SIZES, strict=True):
            losses = losses_of(models[0], data, only)
            counts = dict.fromkeys(losses, size)
            if path == "call":
                (balancers[0](losses, counts) / 4).backward()
            else:
                balancers[0].backward(losses, counts, gradient=torch.tensor(0.25))
        losses, counts = whole_of(models[1], step, holes)
        balancers[1](losses, counts).backward()
        assert_same(gradients_of(models[0]), gradients_of(models[1]), 1e-6)
        for optimizer in optimizers:
            optimizer.step()
    for balancer in balancers:
        balancer.state_dict()
    assert int(balancers[0].strategy.step) == int(balancers[1].strategy.step) == 3
    for key, value in balancers[1].strategy.state_dict().items():
        torch.testing.assert_close(
            balancers[0].strategy.state_dict()[key], value, rtol=1e-4, atol=1e-6, equal_nan=True
        )


def test_micro_batches_weighted_apart_are_another_algorithm():
    found = []
    for kind, steps in (("window", 4), ("microbatch", None)):
        model = toy(3)
        balancer = Balancer("mgda", names(3), model, accumulation=kind, accumulation_steps=steps)
        for data in pieces(0):
            (balancer(losses_of(model, data)) / 4).backward()
        found.append(model.encoder[0].weight.grad)
    assert (found[0] - found[1]).abs().max() > 1e-3


def test_accelerate_tells_the_end_of_a_window():
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
    model = toy(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    model, optimizer = accelerator.prepare(model, optimizer)
    balancer = Balancer("mgda", names(3), model, accumulation="window")
    for round_ in range(2):
        for k, (data, size) in enumerate(zip(pieces(0), SIZES, strict=True)):
            with accelerator.accumulate(model):
                losses = losses_of(model, data)
                accelerator.backward(balancer(losses, dict.fromkeys(losses, size)))
                assert (model.encoder[0].weight.grad is None) == (k < 3)
                if k == 3:
                    found = model.encoder[0].weight.grad.clone()
                optimizer.step()
                optimizer.zero_grad()
        assert int(balancer.strategy.step) == round_ + 1
    reference = toy(3)
    Balancer("mgda", names(3), reference)(losses_of(reference, batch(sum(SIZES), seed=0))).backward()
    torch.testing.assert_close(found, reference.encoder[0].weight.grad, rtol=1e-4, atol=1e-6)


def test_nothing_tells_the_end():
    """An error at the first call, before any gradient."""
    model = toy()
    balancer = Balancer("mgda", names(2), model, accumulation="window")
    with pytest.raises(ValueError, match="pass accumulation_steps="):
        balancer(losses_of(model, batch()))
    with pytest.raises(ValueError, match="pass accumulation_steps="):
        balancer.backward(losses_of(model, batch()))


def loop(balancer, model, steps=2, k=3):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(steps):
        for part in range(k):
            (balancer(losses_of(model, batch(seed=10 * step + part))) / k).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.state_dict()


def test_an_accelerator_of_another_loop_does_not_pass_for_this_one_s():
    """It says that every micro-batch is the last of its step; the second one shows that this is not so."""
    from accelerate import Accelerator

    Accelerator(cpu=True)
    model = toy(3)
    balancer = Balancer("mgda", names(3), model, accumulation="window")
    with pytest.raises(RuntimeError, match=r"the optimizer has not stepped since.*pass accumulation_steps="):
        loop(balancer, model)
    model, plain = toy(3), toy(3)
    found = loop(Balancer("mgda", names(3), model, accumulation="window", accumulation_steps=3), model)
    optimizer, balancer = torch.optim.SGD(plain.parameters(), lr=0.05), Balancer("mgda", names(3), plain)
    for step in range(2):
        parts = [losses_of(plain, batch(seed=10 * step + part)) for part in range(3)]
        optimizer.zero_grad()
        balancer({task: sum(part[task] for part in parts) / 3 for task in parts[0]}).backward()
        optimizer.step()
    for key, value in plain.state_dict().items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-6)


def test_one_window_a_step_is_no_other_loop():
    """One micro-batch per step, as an Accelerator without accumulation says: also where steps are skipped."""
    from accelerate import Accelerator

    Accelerator(cpu=True)
    model = toy(3)
    balancer = Balancer("mgda", names(3), model, accumulation="window")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(4):
        balancer(losses_of(model, batch(seed=step))).backward()
        if step != 1:
            optimizer.step()
        optimizer.zero_grad(set_to_none=step != 2)
    balancer.state_dict()
    assert int(balancer.strategy.step) == 3


@pytest.mark.parametrize("name", ["mgda", "uw"])
def test_a_micro_batch_that_is_not_finite_spoils_its_window_only(name):
    model = toy()
    balancer = Balancer(name, names(2), model, accumulation="window", accumulation_steps=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for bad in (True, False):
        for k in range(2):
            losses = losses_of(model, batch(seed=k))
            if bad and k == 0:
                losses["t0"] = losses["t0"] * float("inf")
            balancer(losses).backward()
        assert model.encoder[0].weight.grad.isfinite().all() == (not bad)
        if not bad:
            optimizer.step()
        optimizer.zero_grad()
    balancer.state_dict()
    assert int(balancer.strategy.step) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accumulation": "windows"}, "should be 'microbatch' or 'window', found 'windows'"),
        ({"accumulation": "window", "accumulation_steps": 0}, "whole number of at least 1, found 0"),
        ({"accumulation_steps": 4}, "belongs to accumulation='window'"),
        ({"accumulation": "window", "every": 2}, "needs all rows"),
    ],
)
def test_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        Balancer("mgda", names(2), **options)


@pytest.mark.parametrize("name", ["modo", "sdmgrad"])
def test_an_accelerator_of_another_loop_ends_no_window_before_its_batches(name):
    """It says that every micro-batch is the last, and the rows of one alone would give no gradient at all."""
    from accelerate import Accelerator

    Accelerator(cpu=True)
    model = toy(3)
    balancer = Balancer(name, names(3), model)
    for part in range(balancer.strategy.batches):
        assert all(p.grad is None for p in model.parameters())
        balancer(losses_of(model, batch(seed=part))).backward()
    assert all(p.grad is not None for p in model.encoder.parameters())


def test_counts_beyond_the_range_of_half_precision_losses():
    model = toy(2)
    balancer = Balancer("mgda", names(2), model, accumulation="window", accumulation_steps=2)
    for part in range(2):
        losses = {task: loss.half() for task, loss in losses_of(model, batch(seed=part)).items()}
        balancer(losses, dict.fromkeys(losses, 70_001)).backward()
    assert all(torch.isfinite(p.grad).all() and p.grad.any() for p in model.encoder.parameters())
