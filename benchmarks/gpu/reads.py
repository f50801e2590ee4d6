"""How often a step makes the host wait for the device: once per Gramian step, never per loss-based one."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial, partialmethod
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import toys
from loops import TASKS, backward, batch_on, model_on, needs_batches
from precision import scaler
from records import Failed, Log

from mtlweights import Balancer, strategies
from mtlweights.strategies import GramStrategy, JacobianStrategy

WARM = 6  #: steps first: the signs of losses are looked at in the first ones
READS = ("item", "tolist", "cpu", "__bool__", "__float__", "__int__", "equal")
Step = Callable[[], None]
Only = tuple[int, ...] | None  # the tasks at hand


def run(names: list[str], log: Log) -> None:
    """Plain training first: what it waits for is not the balancer's."""
    device = torch.device(log.device)
    alone = [n for n in names if needs_batches(n) == 1]
    for group, those, path, amp, only in (
        ("SGD, by call", names, "call", False, None),
        ("SGD, by backward", names, "backward", False, None),
        ("fp16, GradScaler, fused Adam", names, "call", True, None),
        ("SGD, a task absent", alone, "call", False, (0, 2)),
    ):
        judge = partial(_judge, device=device, path=path, amp=amp, only=only)
        log.checks(group, ["plain", *those], judge)


def allowed(name: str) -> int | None:
    """Waits per step; None: not promised."""
    if name == "plain":
        return 0
    kind = strategies.get(name)
    return None if issubclass(kind, JacobianStrategy) else int(issubclass(kind, GramStrategy))


def _judge(name: str, device: torch.device, path: str, amp: bool, only: Only) -> str:
    """The waits of one step; on a CPU, which waits for nothing, the calls that would be."""
    step = training_step(name, device, path, amp, only)
    for _ in range(WARM):
        step()
    found = waits(step) if device.type == "cuda" else calls(step)
    most = allowed(name)
    if device.type == "cuda" and most is not None and len(found) > most:
        raise Failed(f"{len(found)} waits, {most} allowed: {', '.join(found)}")
    return str(len(found))


def training_step(name: str, device: torch.device, path: str, amp: bool, only: Only) -> Step:
    """Forward, backward, optimizer, of a strategy or of the plain sum."""
    model = model_on(device, torch.float32)
    kind: Any = partial(torch.optim.Adam, fused=True) if amp else torch.optim.SGD
    optimizer = kind(model.parameters(), lr=1e-3)
    balancer = None if name == "plain" else Balancer(name, toys.names(TASKS), model)
    if balancer is not None:
        balancer.attach(optimizer)
    scaled, data = scaler(device) if amp else None, batch_on(device, torch.float32, 0)

    def losses() -> dict[str, torch.Tensor]:
        with torch.autocast(device.type, torch.float16, enabled=amp):
            return toys.losses_of(model, data, only)

    def step() -> None:
        if balancer is not None:
            backward(balancer, losses, path, scaled)
        else:
            total = torch.stack(list(losses().values())).sum()
            (total if scaled is None else scaled.scale(total)).backward()
        if scaled is None:
            optimizer.step()
        else:
            scaled.step(optimizer)
            scaled.update()
        optimizer.zero_grad()

    return step


def waits(step: Step) -> list[str]:
    """Where the host waited, as torch tells it."""
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    told = [w for w in caught if "called a synchronizing" in str(w.message)]
    return [f"{Path(w.filename).name}:{w.lineno}" for w in told]


def calls(step: Step) -> list[str]:
    """Calls of a tensor's methods that copy it to the host; those on the host's own state are among them."""
    found: list[str] = []

    def noted(name: str, method: Any, tensor: Any, *args: Any) -> Any:
        found.append(name)
        return method(tensor, *args)

    with ExitStack() as stack:
        for name in READS:
            method = getattr(torch.Tensor, name)
            stack.enter_context(patch.object(torch.Tensor, name, partialmethod(_call, noted, name, method)))
        step()
    return found


def _call(tensor: Any, noted: Any, name: str, method: Any, *args: Any) -> Any:
    return noted(name, method, tensor, *args)
