"""Forward passes that are compiled, or replayed from a captured CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from loops import Way, batch_on, train
from records import Failed, Log
from torch import Tensor, nn

from mtlweights import Balancer, strategies
from mtlweights.strategies import LossStrategy

Compare = Callable[[str, Way], str]
KINDS = ("uw", "famo", "gradnorm", "pcgrad", "mgda", "modo", "graddrop", "db_mtl")


def replayed(names: list[str], log: Log, compare: Compare) -> None:
    """From a captured graph, which may go backward once: one pass is right, several are refused."""
    device = torch.device(log.device)
    one = [name for name in names if issubclass(strategies.get(name), LossStrategy)]
    one = [name for name in one if strategies.get(name).heads == "weighted"]
    way = Way(device, prepare=captured)
    log.checks("captured CUDA graph, one pass", one, lambda n: compare(n, way))
    several = [name for name in names if name not in one]
    log.checks("captured CUDA graph, several passes refused", several, lambda n: _refused(n, way))
    modes = {"gradients": "features"}
    below = Way(device, arguments=modes, features=True, prepare=captured)
    those = [name for name in several if _takes(name, modes)]
    log.checks("captured CUDA graph below the features", those, lambda n: compare(n, below))


def _refused(name: str, way: Way) -> str:
    try:
        train(name, way)
    except ValueError as error:
        if "make_graphed_callables can go backward once" in str(error):
            return "refused"
        raise
    raise Failed("not refused")


def by_compiler(names: list[str], log: Log, compare: Compare) -> None:
    """Compiled; of the mode that replays graphs a strategy of each kind, since it captures anew for each."""
    device = torch.device(log.device)
    kinds = [name for name in KINDS if name in names]
    modes = [("default", names)] + [("reduce-overhead", kinds)] * (device.type == "cuda")
    for mode, those in modes:
        torch._dynamo.reset()
        Balancer("pcgrad", ["a", "b"])  # graphs are to be compiled for several passes
        way = Way(device, prepare=lambda model, mode=mode: compiled(model, device, mode))
        log.checks(f"torch.compile, mode {mode}", those, lambda n, way=way: compare(n, way))
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        log.add(f"torch.compile, mode {mode}", "graphs compiled", None if graphs else False, str(graphs))


def _takes(name: str, arguments: dict[str, Any]) -> bool:
    try:
        Balancer(name, ["a", "b"], **arguments)
    except ValueError:
        return False
    return True


def compiled(model: nn.Module, device: torch.device, mode: str | None) -> Any:
    """Compiled by inductor on a GPU; on the CPU traced alone, which is faster to try."""
    if device.type == "cpu":
        return torch.compile(model, backend="aot_eager")
    return torch.compile(model, mode=mode)


def captured(model: nn.Module) -> nn.Module:
    """The model, its encoder replayed from a graph with fixed memory for outputs and gradients."""
    x = batch_on(next(model.parameters()).device, next(model.parameters()).dtype, 0)[0]
    encoder: Any = model.encoder
    if x.is_cuda:
        torch.cuda.make_graphed_callables(encoder, (x,))  # in place
        return model
    params, modules = list(encoder.parameters()), nn.Sequential(*encoder)
    buffers = [torch.empty_like(param) for param in params]
    encoder.forward = lambda x: Graphed.apply(modules, buffers, x, *params)
    return model


class Graphed(torch.autograd.Function):
    """On the CPU, a stand-in for a captured graph, of the same name."""

    @staticmethod
    def forward(ctx: Any, module: nn.Module, buffers: list[Tensor], x: Tensor, *params: Tensor) -> Tensor:
        ctx.module, ctx.buffers, ctx.x = module, buffers, x
        return module(x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        with torch.enable_grad():
            found = torch.autograd.grad(ctx.module(ctx.x), list(ctx.module.parameters()), gradient)
        for buffer, new in zip(ctx.buffers, found, strict=True):
            buffer.copy_(new)
        return None, None, None, *(buffer.detach() for buffer in ctx.buffers)
