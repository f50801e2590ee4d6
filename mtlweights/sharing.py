"""Which parameters the tasks share, read from the gradients that arrive.

A parameter is shared once two tasks' losses have reached it, at any time in the run: the set only grows.
Reachability is which gradients are None, never the shape of the graph, which torch.compile, DDP and
checkpointing hide.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch import Tensor, nn

from . import graph, sharded
from .gradients import Row

Shared = str | nn.Module | Callable[[str], bool] | Iterable[Tensor | nn.Module]


class Sharing:
    """The trainable parameters a run has met, and the tasks that reach each.

    Args:
        tasks: The T task names.
        model: The model, or None: then parameters are found behind each task's first loss and the record
            of who reaches them cannot be saved by name.
        shared: Where a Gramian is measured: ``"auto"`` (all that at least two tasks reach), parameters,
            modules, or a predicate on the parameter's name.
    """

    def __init__(self, tasks: Sequence[str], model: nn.Module | None, shared: Shared = "auto") -> None:
        self.tasks, self.model, self.shared = tuple(tasks), model, shared
        self.names: list[str] = []
        self.params: list[Tensor] = []
        self.reach = np.zeros((len(tasks), 0), dtype=bool)
        self.order: dict[int, int] = {}
        self.compiled = False
        self._met: set[int] = set()
        self._unread: set[int] = set()  # met, but no row of theirs has been recorded
        self._known: dict[str, list[int]] = {}
        self._chosen: set[int] | None = None

    def meet(self, present: Sequence[int], losses: Sequence[Tensor]) -> None:
        """Learn of the parameters behind the losses of tasks not seen before."""
        if not self.params and self.model is not None:
            sharded.check_model(self.model)
            if self.sharded:
                sharded.reshard(self.model)
            self._add(*zip(*self.model.named_parameters(), strict=True))
        new = [i for i in present if i not in self._met]
        for i, loss in zip(present, losses, strict=True):
            if i in new:
                self._walk(loss)
        self._met.update(new)
        self._unread.update(new)

    @cached_property
    def sharded(self) -> bool:
        """The parameters are sharded (FSDP2), and the graph is on other tensors than the optimizer's."""
        return sharded.is_sharded(self.model)

    def probe(self, losses: Sequence[Tensor]) -> Tensor | None:
        """A parameter that an optimizer of the model holds."""
        if self.sharded and self.model is not None:
            sharded.reshard(self.model)
            return next((p for p in self.model.parameters() if p.requires_grad), None)
        leaves = (graph.leaf(node) for node in graph.nodes(losses))
        found = next((leaf for leaf in leaves if leaf is not None), None)
        # FSDP1 with use_orig_params: the leaf is flat, the optimizer holds the parameters it is made of
        parts = getattr(found, "_params", None) or [found]
        return next((part for part in parts if part is not None and part.requires_grad), None)

    def _walk(self, loss: Tensor) -> None:
        """Find leaves (without a model), the forward order of their use, and what must be refused."""
        found = {} if self.model is not None else {id(p): p for p in self.params}
        for node in graph.nodes([loss]):
            name = node.name()
            self.compiled |= "CompiledFunction" in name
            if name == "CheckpointFunctionBackward":
                raise ValueError(
                    "Reentrant activation checkpointing hides parameters from per-task gradients: "
                    "use checkpoint(..., use_reentrant=False)."
                )
            for param in graph.used_by(node):
                sharded.check_leaf(param)
                found.setdefault(id(param), param)
                self.order[id(param)] = max(self.order.get(id(param), 0), node._sequence_nr())
        if self.model is None:
            new = list(found.values())[len(self.params) :]  # those known came first
            self._add([f"parameter {len(self.params) + k}" for k in range(len(new))], new)

    def _add(self, names: Sequence[str], params: Sequence[Tensor]) -> None:
        self.names += names
        self.params += params
        grown = np.zeros((len(self.tasks), len(self.params)), dtype=bool)
        grown[:, : self.reach.shape[1]] = self.reach
        self.reach = grown
        for column, name in enumerate(self.names):
            self.reach[self._known.get(name, []), column] = True

    def trainable(self) -> list[int]:
        """Columns of the parameters that require a gradient now."""
        return [c for c, p in enumerate(self.params) if p.requires_grad]

    def update(self, present: Sequence[int], rows: Sequence[Row], columns: Sequence[int]) -> None:
        """Record which tasks reach which of ``columns``, from rows over those columns.

        A compiled graph returns zeros where an eager one returns None, so there a parameter counts as
        reached if the task's first row is not exactly zero.
        """
        for i, row in zip(present, rows, strict=True):
            if self.compiled and i not in self._unread:
                continue
            self._unread.discard(i)
            for c, gradient in zip(columns, row, strict=True):
                if gradient is not None and not self.reach[i, c]:
                    self.reach[i, c] = not self.compiled or bool(gradient.any())

    def measured(self, where: str, present: Sequence[int]) -> list[int]:
        """Columns over which the Gramian is taken.

        With a single task at hand and nothing known to be shared, all that it reaches.

        Raises:
            ValueError: the tasks at hand share no trainable parameter.
        """
        if self.shared != "auto":
            columns = [c for c in self.trainable() if id(self.params[c]) in self._choice()]
        else:
            times = self.reach.sum(0)
            least = 2 if where != "all" and (len(present) > 1 or (times >= 2).any()) else 1
            columns = [c for c in self.trainable() if times[c] >= least]
        if not columns or (len(present) > 1 and not self.reach[np.ix_(present, columns)].any()):
            names = ", ".join(self.tasks[i] for i in present)
            raise ValueError(
                f"The tasks {names} share no trainable parameter"
                f"{'' if self.shared == 'auto' else ' among those named in shared='}: balancing their "
                "gradients needs a common encoder. Check that it is not frozen or detached, or use a "
                "loss-based strategy."
            )
        return self._last_layer(columns) if where == "last_shared" else columns

    def _choice(self) -> set[int]:
        if self._chosen is None:
            chosen: Any = self.shared
            if isinstance(chosen, nn.Module):
                chosen = [chosen]
            if callable(chosen):
                chosen = [p for n, p in zip(self.names, self.params, strict=True) if chosen(n)]
            parts = [x.parameters() if isinstance(x, nn.Module) else [x] for x in chosen]
            self._chosen = {id(p) for part in parts for p in part}
        return self._chosen

    def _last_layer(self, columns: list[int]) -> list[int]:
        """The layer used last in the forward pass: the parameters of the module that owns it."""
        last = max(columns, key=lambda c: (self.order.get(id(self.params[c]), 0), c))
        if self.model is None:
            used = self.order.get(id(self.params[last]), 0)
            return [c for c in columns if self.order.get(id(self.params[c]), 0) == used]
        owner = self.names[last].rpartition(".")[0]
        return [c for c in columns if self.names[c].rpartition(".")[0] == owner]

    def state_dict(self) -> dict[str, list[int]]:
        """Parameter name -> tasks that reach it; empty without a model."""
        if self.model is None:
            return {}
        return {n: np.flatnonzero(self.reach[:, c]).tolist() for c, n in enumerate(self.names)} or self._known

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._known = {name: list(tasks) for name, tasks in state.items()}
        for column, name in enumerate(self.names):
            self.reach[:, column] = False
            self.reach[self._known.get(name, []), column] = True
