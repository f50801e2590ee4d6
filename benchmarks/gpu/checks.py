"""The balancer on the device against the CPU in float64: every strategy, path, mode and kind of forward."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import encoder
import graphed
import precision
import torch
import toys
from loops import (
    ABSENT,
    DRAWN,
    STEPS,
    TASKS,
    Way,
    batch_on,
    distance,
    model_on,
    needs_batches,
    reference,
    train,
)
from models import on
from records import Failed, Log

from mtlweights import Balancer, strategies
from mtlweights.gradients import batched
from mtlweights.strategies import GramStrategy, JacobianStrategy

NEAR = 1e-4  #: of float32 against float64: the length of the difference over the length
TURNS = 0.02  #: where a step decides by the sign of a coordinate, of the few that rounding turns


def run(names: list[str], log: Log) -> None:
    """All groups."""
    device = torch.device(log.device)
    gram = [n for n in names if issubclass(strategies.get(n), GramStrategy)]
    stacked = [n for n in gram if needs_batches(n) > 1]
    alone = [n for n in gram if n not in stacked]
    in_one = [n for n in alone if "validate" not in strategies.get(n).hooks()]
    log.checks("first step by the paper's formula, float32", names, lambda n: definition(n, device))
    ways: list[tuple[str, list[str], Way]] = [
        ("balancer(losses).backward()", names, Way(device, path="call")),
        ("balancer.backward(losses)", names, Way(device)),
        ("gradients='rows'", gram, Way(device, arguments={"gradients": "rows"})),
        ("gradients='gramian'", gram, Way(device, arguments={"gradients": "gramian"})),
        ("gradients='features'", in_one, Way(device, arguments={"gradients": "features"}, features=True)),
        ("every=2, smoothing=0.5", alone, Way(device, arguments={"every": 2, "smoothing": 0.5})),
        ("window of two micro-batches", [n for n in names if n not in stacked],
         Way(device, arguments={"accumulation": "window", "accumulation_steps": 2})),
        ("a task absent in one step", [n for n in names if n not in stacked], Way(device, only=ABSENT)),
        ("float64", names, Way(device, torch.float64)),
        ("a stream of its own", names, Way(device, around=lambda: beside(device))),
        ("the trunk's passes as one", in_one, Way(device, around=together)),
    ]  # fmt: skip
    for group, those, way in ways:
        log.checks(group, those, lambda n, way=way: compare(n, way))
    log.checks("a transformer's passes as one", ["float32", "bfloat16"], lambda n: as_one(n, device))
    graphed.replayed(names, log, compare)
    precision.run(names, log)
    graphed.by_compiler(names, log, compare)


def compare(name: str, way: Way) -> str:
    """Gradients of each step, parameters and steps counted, as on the CPU in float64."""
    expected, found = reference(name, way), train(name, way)
    if found.reached != expected.reached:
        raise Failed("other parameters have a gradient than on the CPU")
    if found.steps != expected.steps:
        raise Failed(f"{found.steps} steps counted, {expected.steps} on the CPU")
    apart = [distance(f, e) for f, e in zip(found.gradients, expected.gradients, strict=True)]
    worst = max(*apart, distance(found.end, expected.end))
    limit = TURNS if issubclass(strategies.get(name), JacobianStrategy) else NEAR
    if not worst <= limit:
        raise Failed(f"gradients {', '.join(f'{a:.0e}' for a in apart)} apart in {STEPS} steps")
    return f"{worst:.0e}"


def definition(name: str, device: torch.device) -> str:
    """The first gradient as the strategy's own method gives it, outside of the balancer."""
    on = (device, torch.float32) if name in DRAWN else (torch.device("cpu"), torch.float64)
    model, strategy = model_on(*on), strategies.get(name)(TASKS)
    strategy.to(on[0])
    expected = toys.naive_step(model, batch_on(*on, 0), strategy)
    pairs = zip(model.parameters(), expected.values(), strict=True)
    whole = [torch.zeros_like(p) if g is None else g for p, g in pairs]
    first = torch.cat([gradient.double().flatten().cpu() for gradient in whole])
    apart = distance(train(name, Way(device)).gradients[0], first)
    if not apart <= (TURNS if issubclass(strategies.get(name), JacobianStrategy) else NEAR):
        raise Failed(f"{apart:.0e} from the definition")
    return f"{apart:.0e}"


@contextmanager
def together() -> Iterator[None]:
    """The smallest trunk goes backward for all tasks at once."""
    few, batched.FEW_NODES = batched.FEW_NODES, 1
    try:
        yield
    finally:
        batched.FEW_NODES = few


def as_one(kind: str, device: torch.device) -> str:
    """A transformer's gradients with the trunk's passes as one, against a pass per task, dropout alike."""
    problem = on(encoder.transformer(4, width=64, layers=2, heads=4, vocabulary=200, shape=(4, 32)), device)
    problem = encoder.in_bf16(problem) if kind == "bfloat16" else problem
    found = []
    for gradients in ("rows", "auto"):
        balancer = Balancer("pcgrad", problem.tasks, problem.model, gradients=gradients)
        for _ in range(2):
            torch.manual_seed(3)
            problem.zero_grad()
            balancer.backward(problem.losses())
        found.append(torch.cat([p.grad.double().flatten() for p in problem.params if p.grad is not None]))
    apart = distance(found[1], found[0])
    if not apart <= (NEAR if kind == "float32" else 100 * NEAR):
        raise Failed(f"{apart:.0e} apart")
    return f"{apart:.0e}"


@contextmanager
def beside(device: torch.device) -> Iterator[None]:
    """On another stream, late: what does not wait for it computes on what is not there yet."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(2_000_000)  # cycles: about a millisecond
        yield
    torch.cuda.current_stream().wait_stream(stream)


Compare = Callable[[str, Way], str]
