"""Half precision with a real GradScaler, and steps that overflow; TF32; resuming."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import toys
from loops import TASKS, Way, backward, batch_on, distance, flat, losses_of, model_on, reference
from records import Failed, Log
from torch import Tensor, nn

from mtlweights import Balancer, strategies
from mtlweights.strategies import JacobianStrategy

HALF, COARSE = 0.05, 0.5  #: as a length; COARSE where a step decides by the signs of coordinates
SCALE, HUGE = 1024.0, 2.0**126
SGD = partial(torch.optim.SGD, lr=0.02)


def run(names: list[str], log: Log) -> None:
    """All groups."""
    device = torch.device(log.device)
    bf16 = Way(device, autocast=torch.bfloat16)
    log.checks("bf16 autocast", names, lambda n: near(n, bf16, None, SGD))
    fp16 = Way(device, autocast=torch.float16)
    log.checks("fp16, GradScaler", names, lambda n: near(n, fp16, scaler(device), SGD))
    log.checks("fp16, GradScaler, call", names, lambda n: near(n, _by_call(fp16), scaler(device), SGD))
    plain, fused = partial(torch.optim.Adam, lr=0.01), partial(torch.optim.Adam, lr=0.01, fused=True)
    for label, optimizer in (("Adam", plain), ("fused Adam", fused)):
        for where in ("head", "trunk", "scale"):
            log.checks(
                f"overflow in the {where}, {label}",
                names,
                lambda n, o=optimizer, w=where: overflow(n, device, o, w),
            )
    for label, switch in (("new", _new_tf32), ("old", _old_tf32)):
        log.checks(f"TF32 by torch's {label} switch", names, lambda n, s=switch: with_tf32(n, device, s))
    log.checks("resumed from a file read on the CPU", names, lambda n: resumed(n, device))


def scaler(device: torch.device) -> Any:
    return torch.amp.GradScaler(device.type, init_scale=SCALE)


def _by_call(way: Way) -> Way:
    return Way(way.device, path="call", autocast=way.autocast)


def _start(name: str, device: torch.device, optimizer: Any) -> tuple[nn.Module, Balancer, Any]:
    model = model_on(device, torch.float32)
    balancer = Balancer(name, toys.names(TASKS), model)
    made = optimizer(model.parameters())
    balancer.attach(made)
    return model, balancer, made


def near(name: str, way: Way, scaler: Any, optimizer: Any) -> str:
    """The first gradient near float64's, and three steps that count."""
    model, balancer, made = _start(name, way.device, optimizer)
    taken = 0
    for step in range(3):
        data = batch_on(way.device, torch.float32, step)
        backward(balancer, lambda: losses_of(model, data, way, step), way.path, scaler)  # noqa: B023
        if scaler is not None:
            scaler.unscale_(made)
        if step == 0:
            apart = distance(flat(model).cpu(), reference(name, Way(way.device)).gradients[0])
        if scaler is None:
            made.step()
            taken += 1
        else:
            before = scaler.get_scale()
            scaler.step(made)
            scaler.update()
            taken += scaler.get_scale() >= before
        made.zero_grad()
    balancer.state_dict()
    if not 1 <= taken == int(balancer.strategy.step):
        raise Failed(f"{int(balancer.strategy.step)} steps counted of {taken} taken")
    limit = COARSE if issubclass(strategies.get(name), JacobianStrategy) else HALF
    if not apart <= limit:
        raise Failed(f"first gradient {apart:.0e} from float64's")
    return f"{apart:.0e}"


def spike(param: Tensor) -> Tensor:
    """Zero, with a gradient that is not finite."""
    zero = (param - param.detach()).sum()
    zero.register_hook(lambda gradient: torch.full_like(gradient, float("inf")))
    return zero


def overflow(name: str, device: torch.device, optimizer: Any, where: str) -> str:
    """A good step, one that overflows and leaves everything as it was, and a good one."""
    model, balancer, made = _start(name, device, optimizer)
    scaled = scaler(device)
    way = Way(device, autocast=torch.float16 if where == "scale" else None)
    data = batch_on(device, torch.float32, 0)

    def losses(bad: bool) -> dict[str, Tensor]:
        found = losses_of(model, data, way, 0)
        if bad and where == "head":
            found["t1"] = found["t1"] + spike(model.heads[1].bias)
        if bad and where == "trunk":
            found["t0"] = found["t0"] + spike(model.encoder[0].bias)
        return found

    def step(bad: bool) -> None:
        made.zero_grad()
        if bad and where == "scale":
            scaled.update(HUGE)
        backward(balancer, partial(losses, bad), "call", scaled)
        scaled.step(made)
        scaled.update()

    step(False)
    before = copy.deepcopy(balancer.state_dict()), [p.detach().clone() for p in model.parameters()]
    step(True)
    toys.assert_same_state(balancer.state_dict(), before[0])
    if not all(torch.equal(p, q) for p, q in zip(model.parameters(), before[1], strict=True)):
        raise Failed("parameters moved in a step that was skipped")
    if scaled.get_scale() != (HUGE if where == "scale" else SCALE) / 2:
        raise Failed(f"the scale is {scaled.get_scale()} after the overflow")
    scaled.update(SCALE)
    step(False)
    balancer.state_dict()
    if int(balancer.strategy.step) != 2:
        raise Failed(f"{int(balancer.strategy.step)} steps counted of 2 taken")
    return ""


@contextmanager
def _new_tf32() -> Iterator[Callable[[], str]]:
    """The setting of one backend, after which the older global one cannot be read."""
    matmul: Any = torch.backends.cuda.matmul
    if not hasattr(matmul, "fp32_precision"):
        yield lambda: "tf32"
        return
    before = matmul.fp32_precision
    matmul.fp32_precision = "tf32"
    try:
        yield lambda: str(matmul.fp32_precision)
    finally:
        matmul.fp32_precision = before


@contextmanager
def _old_tf32() -> Iterator[Callable[[], str]]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield lambda: {"high": "tf32"}.get(*[torch.get_float32_matmul_precision()] * 2)
    finally:
        torch.set_float32_matmul_precision(before)


def with_tf32(name: str, device: torch.device, switch: Any) -> str:
    """Near float64, and the caller's setting is as it was."""
    with switch() as setting:
        value = near(name, Way(device), None, SGD)
        if setting() != "tf32":
            raise Failed(f"the caller's precision became {setting()}")
    return value


def resumed(name: str, device: torch.device) -> str:
    """Two steps, saved and loaded, and two more: as four in one go."""
    ends = []
    for saves in (False, True):
        model, balancer, made = _start(name, device, SGD)
        for step in range(4):
            if saves and step == 2:
                file = io.BytesIO()
                torch.save({"model": model.state_dict(), "balancer": balancer.state_dict()}, file)
                file.seek(0)
                state = torch.load(file, map_location="cpu", weights_only=True)
                model, balancer, made = _start(name, device, SGD)
                model.load_state_dict(state["model"])
                balancer.load_state_dict(state["balancer"])
            data = batch_on(device, torch.float32, step)
            backward(balancer, lambda: losses_of(model, data, Way(device), 0), "backward")  # noqa: B023
            made.step()
            made.zero_grad()
        ends.append(torch.cat([p.detach().double().flatten() for p in model.parameters()]))
    apart = distance(ends[1], ends[0])
    if not apart <= 1e-6:
        raise Failed(f"{apart:.0e} from the run in one go")
    return f"{apart:.0e}"
