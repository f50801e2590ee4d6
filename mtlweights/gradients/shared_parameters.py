"""Which parameters the tasks share, read from the graph of every backward.

A backward is about the leaves of its own graph, whatever was there before. What lasts is which tasks have
reached a parameter, at any time in the run: it is shared once two have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

from torch import Tensor, nn

from . import fsdp, graph
from .graph import Graph
from .leaves import OUTSIDE, Known, Leaves, Record
from .task_gradients import size

Shared = str | nn.Module | Callable[[str], bool] | Iterable[Tensor | nn.Module]


class Sharing:
    """The parameters of a run, and the tasks that reach each.

    Args:
        tasks: The T task names.
        model: The model, or None: then the record of who reaches what cannot be saved by name.
        shared: Where a Gramian is measured: ``"auto"`` (all that at least two tasks reach), parameters,
            modules, or a predicate on the name of a parameter of the model.

    Raises:
        ValueError: a predicate without a model.
    """

    def __init__(self, tasks: Sequence[str], model: nn.Module | None, shared: Shared = "auto") -> None:
        self.tasks, self.model = tuple(tasks), model
        self.record = Record(model)
        self._measured: list[Known] = []  # last
        self._checked = False
        if model is None and callable(shared) and not isinstance(shared, nn.Module):
            raise ValueError(
                "shared= as a predicate asks for names, which model= gives: pass the model, or parameters."
            )
        one = isinstance(shared, (str, nn.Module)) or callable(shared)
        self.shared: Any = shared if one else [self._by_name(part) for part in shared]  # type: ignore[union-attr]

    def _by_name(self, part: Any) -> Any:
        """A parameter of the model becomes its name, since the object may be replaced."""
        named = () if self.model is None else self.model.named_parameters()
        return next((name for name, param in named if param is part), part)

    @cached_property
    def sharded(self) -> bool:
        """The parameters are sharded (FSDP2), and the graph is on other tensors than the optimizer's."""
        return fsdp.is_sharded(self.model)

    def probe(self, losses: Sequence[Tensor]) -> Tensor | None:
        """A parameter that an optimizer of the model holds."""
        if self.sharded and self.model is not None:
            fsdp.reshard(self.model)
            return next((p for p in self.model.parameters() if p.requires_grad), None)
        found = next((p for node in graph.nodes(losses) if (p := graph.leaf(node)) is not None), None)
        # FSDP1 with use_orig_params: the leaf is flat, the optimizer holds the parameters it is made of
        parts = getattr(found, "_params", None) or [found]
        return next((part for part in parts if part is not None and part.requires_grad), None)

    def register(self, present: Sequence[int], losses: Sequence[Tensor], everywhere: bool = False) -> Leaves:
        """The leaves of these losses, and who reaches them.

        With ``everywhere``, for several ranks: all trainable parameters of the model and all met outside
        it, a list that ranks with other tasks at hand share. Who reaches them is to be agreed on.
        """
        if not self._checked and self.model is not None:
            fsdp.check_model(self.model)
        self._checked = True
        if self.sharded and self.model is not None:
            fsdp.reshard(self.model)
            return self.arrange(p for p in self.model.parameters() if p.requires_grad)
        behind = Graph(losses, self.record.probe)
        found = behind.leaves
        if everywhere:  # inputs of the network are each rank's own
            found = self.record.everything(p for p in found if isinstance(p, nn.Parameter))
        leaves = self.arrange(found, behind)
        for known, param in zip(leaves.known, leaves.params, strict=True):
            if not known.whole:
                fsdp.check_leaf(param)
                known.whole = True
        pairs = list(zip(present, behind.reached, strict=True))
        masks = {
            id(param): sum((reached >> k & 1) << i for i, reached in pairs)
            for k, param in enumerate(behind.leaves)
        }
        leaves.here = [masks.get(id(param), 0) for param in leaves.params]
        if not everywhere:
            leaves.learn(leaves.here)
        return leaves

    def arrange(self, params: Iterable[Tensor], behind: Graph | None = None) -> Leaves:
        """These parameters in the model's order, then in that of their meeting; nobody reaches them yet."""
        pairs = sorted(((self.record.of(p), p) for p in params), key=lambda pair: pair[0].place)
        known, ordered = [k for k, _ in pairs], [p for _, p in pairs]
        return Leaves(len(self.tasks), ordered, known, [0] * len(pairs), behind)

    def everything(self) -> Leaves:
        """All trainable parameters known: of the model, and met outside it."""
        return self.arrange(self.record.everything())

    def measured(
        self, leaves: Leaves, where: str, present: Sequence[int], agree: Callable[[int], int] = int
    ) -> list[int]:
        """Columns over which the Gramian is taken; ``agree`` gives the first rank's choice of one.

        With a single task at hand and nothing known to be shared, all that it reaches.

        Raises:
            ValueError: the tasks at hand share no trainable parameter.
        """
        known = leaves.known
        if isinstance(self.shared, str):
            least = 2 if where != "all" and (len(present) > 1 or any(leaves.shared)) else 1
            own = leaves.parameters
            columns = [c for c, k in enumerate(known) if own[c] and k.tasks.bit_count() >= least]
        else:
            chosen = self._chosen()
            columns = [c for c, param in enumerate(leaves.params) if id(param) in chosen]
        here = sum(1 << i for i in present)
        if not columns or (len(present) > 1 and not any(known[c].tasks & here for c in columns)):
            names = ", ".join(self.tasks[i] for i in present)
            raise ValueError(
                f"The tasks {names} share no trainable parameter"
                f"{'' if isinstance(self.shared, str) else ' among those named in shared='}: balancing their "
                "gradients needs a common encoder. Check that it is not frozen or detached, or use a "
                "loss-based strategy."
            )
        if where == "last_shared":
            columns = self._last_layer(leaves, columns, agree)
        self._measured = [known[c] for c in columns]
        return columns

    def unmeasured(self, leaves: Leaves, where: str) -> Callable[[int, int], bool]:
        """(leaf, the tasks that have reached it) -> whether `measured` is sure to leave it out."""
        if not isinstance(self.shared, str):
            chosen = self._chosen()
            return lambda c, tasks: id(leaves.params[c]) not in chosen
        if where == "all" or not any(leaves.shared):
            return lambda c, tasks: False
        return lambda c, tasks: tasks.bit_count() < 2 or not leaves.parameters[c]

    @property
    def where(self) -> list[tuple[str, int]]:
        """Names and sizes of what was last measured."""
        found = ((known.name, known.param()) for known in self._measured)
        return [(name, size(param)) for name, param in found if param is not None]

    def _chosen(self) -> set[int]:
        """The parameters named in ``shared``, by the objects that they are now."""
        named = {} if self.model is None else dict(self.model.named_parameters())
        chosen: list[Any] = []
        for part in self.shared if isinstance(self.shared, list) else [self.shared]:
            if isinstance(part, nn.Module):
                chosen += part.parameters()
            elif callable(part) and not isinstance(part, Tensor):
                chosen += [param for name, param in named.items() if part(name)]
            else:
                chosen.append(named.get(part) if isinstance(part, str) else part)
        return set(map(id, chosen))

    def _last_layer(self, leaves: Leaves, columns: list[int], agree: Callable[[int], int]) -> list[int]:
        """The layer used last in the forward pass: the parameters of the module that owns it.

        Of copies that make one layer side by side (experts, a network per task) it is all of them.
        """
        order, names = leaves.order, leaves.names
        last = agree(max(columns, key=lambda c: (order[c], c)))
        if leaves.known[last].place < OUTSIDE:
            owner = self._owner(names[last])
            return [c for c in columns if self._owner(names[c]) == owner]
        if leaves.graph is not None and leaves.graph.compiled:
            raise ValueError(
                "Which parameters of a compiled model are its last shared layer is told by their names: "
                "pass model=, or that layer as shared=."
            )
        return [c for c in columns if order[c] == order[last]]

    def _owner(self, name: str) -> str:
        """Name of the module that owns a parameter, the same for copies in a module with ``side_by_side``."""
        module: Any = self.model
        parts = name.split(".")[:-1]
        for k, part in enumerate(parts):
            if getattr(module, "side_by_side", False):
                parts[k] = "*"
            module = getattr(module, part, None)
        return ".".join(parts)

    def state_dict(self) -> dict[str, list[int]]:
        """Parameter name -> tasks that reach it; empty without a model."""
        return self.record.state_dict()

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.record.load_state_dict(state)

    def __getstate__(self) -> dict[str, Any]:
        """A copy has measured nothing."""
        return {**self.__dict__, "_measured": []}
