"""A look at the losses of a step beside the balancer: their gradients' products, and what families cost.

Nothing of the user's is touched: ``.grad`` is put aside, the graph is kept, the probes are balancers of their
own. A look at a step takes a backward pass per task, every `TIMED`-th a few more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..strategies import ALL, Index, JacobianStrategy
from .advice import Advice, advise

TIMED = 5  #: every so many looks the families are timed
#: family -> the strategy that stands for it
FAMILIES = {"losses": "equal", "last layer": "gradnorm", "Gramian": "pcgrad", "Jacobian": "graddrop"}


class _Products(JacobianStrategy):
    """The plain sum; keeps the products of the rows with each other and with those of the step before."""

    family = "element-wise"

    def __init__(self, n_tasks: int) -> None:
        super().__init__(n_tasks)
        self.before: dict[int, Tensor] = {}
        self.look: dict[str, Any] = {}

    def direction(self, jacobian: Tensor, losses: Tensor, present: Index = ALL) -> Tensor:
        """The sum [P] of the rows."""
        tasks = torch.arange(self.n_tasks)[present.cpu() if isinstance(present, Tensor) else present].tolist()
        wide = jacobian.detach().double()
        ahead = {}
        for i, row in zip(tasks, wide, strict=True):
            old = self.before.get(i)
            if old is not None and old.shape == row.shape:
                ahead[i] = float(old.double() @ row)
            self.before[i] = row.to(jacobian.dtype)
        gram = (wide @ wide.mT).cpu().numpy()
        self.look = {"present": tasks, "gram": gram, "losses": losses.detach().tolist(), "ahead": ahead}
        return jacobian.sum(0)


class Looks:
    """The looks of one balancer at the steps of its loop.

    Raises:
        ValueError: it has no model, several processes train it, or a parameter is stepped in the backward.
    """

    def __init__(self, balancer: Any) -> None:
        if balancer.model is None:
            raise ValueError("advise() looks at the model: give it, Balancer(strategy, tasks, model=model).")
        if balancer._engine.ranks.number > 1:
            raise ValueError(
                "advise() looks at one process's batches: run it without DDP or FSDP, 50 steps do."
            )
        self.tasks, self.model = balancer.tasks, balancer.model
        hooked = [p for p in self.model.parameters() if getattr(p, "_post_accumulate_grad_hooks", None)]
        if hooked:
            raise ValueError(
                "advise() makes backward passes that no optimizer may step in: take the hooks off."
            )
        make, self.products = type(balancer), _Products(len(self.tasks))
        self.probe = make(self.products, self.tasks, self.model)
        several = len(self.tasks) > 1
        self.families = {
            family: make(name, self.tasks, self.model)
            for family, name in FAMILIES.items()
            if several or family == "losses"
        }
        self.looks: list[dict[str, Any]] = []
        self.times: dict[str, list[float]] = {family: [] for family in self.families}
        self.between: list[float] = []
        self.left: float | None = None

    def look(self, losses: Mapping[str, Tensor], counts: Mapping[str, Any] | None) -> None:
        """Measure this step."""
        began = time.perf_counter()
        if self.left is not None:
            self.between.append(began - self.left)
        with _grads_aside(self.model):
            self._backward(self.probe, losses, counts)
            if self.products.look:
                found = self.products.look
                ahead = {self.tasks[i]: product for i, product in found["ahead"].items()}
                self.looks.append({**found, "ahead": ahead})
            if len(self.looks) % TIMED == 0 and len(losses) == len(self.tasks):
                for family, probe in self.families.items():
                    self.times[family].append(self._backward(probe, losses, counts))
        self.left = time.perf_counter()

    def _backward(self, probe: Any, losses: Mapping[str, Tensor], counts: Any) -> float:
        """Seconds of a backward that keeps the graph."""
        device = next(iter(losses.values())).device
        for param in self.model.parameters():
            param.grad = None
        _wait(device)
        began = time.perf_counter()
        probe(losses, counts).backward(retain_graph=True)
        _wait(device)
        return time.perf_counter() - began

    def advice(self) -> Advice:
        """What the looks so far speak for.

        Raises:
            ValueError: there was none.
        """
        if not self.looks:
            raise ValueError("advise() has seen no step: call balancer.advise(losses) in the loop, 50 times.")
        return advise(self.tasks, self.looks, self._costs())

    def _costs(self) -> dict[str, float]:
        """Of each family: a step's time with its backward in the place of the plain one, over the plain step.

        The first of each is left out: torch allocates in it.
        """
        backward = {family: statistics.median(times[1:]) for family, times in self.times.items() if times[1:]}
        if not backward or not self.between:
            return {}
        plain = max(statistics.median(self.between), backward["losses"])
        return {family: (plain - backward["losses"] + own) / plain for family, own in backward.items()}


@contextmanager
def _grads_aside(model: nn.Module) -> Iterator[None]:
    params: Sequence[nn.Parameter] = list(model.parameters())
    kept = [param.grad for param in params]
    try:
        yield
    finally:
        for param, grad in zip(params, kept, strict=True):
            param.grad = grad


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
