"""The leaves of a backward, and what a run remembers of them: names, and the tasks that have reached them."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import Node

from .graph import Graph, depends

NUMBERED = "parameter "  # and a number: the name of one outside the model
OUTSIDE = 1 << 40  # places of parameters outside the model come after the model's


@dataclass(eq=False)
class Known:
    """One parameter."""

    param: weakref.ref[Tensor]
    name: str
    place: int  #: in the model; behind it, in the order of meeting
    tasks: int = 0  #: bit i: task i has reached it
    own: bool = True  #: an ``nn.Parameter``
    whole: bool = False  #: seen to be no part of a sharded one


@dataclass(eq=False)
class Leaves:
    """The n leaves a backward is about, in an order that all ranks share.

    Sets of tasks are ints, bit i for task i.
    """

    n_tasks: int
    params: list[Tensor]
    known: list[Known]  #: what lasts of each
    here: list[int]  #: the tasks that reach it in this backward: on this rank, on any once agreed
    graph: Graph | None = None

    @property
    def names(self) -> list[str]:
        """Of the parameters; those outside the model are numbered."""
        return [known.name for known in self.known]

    @property
    def replayed(self) -> bool:
        """A captured CUDA graph is behind the losses, which can go backward once."""
        return self.graph is not None and self.graph.replayed

    def reached_by(self, tasks: int) -> bool:
        """Whether each of these tasks reaches any of them, now or in an earlier backward."""
        anywhere = 0
        for known in self.known:
            anywhere |= known.tasks
        return tasks & ~anywhere == 0

    @property
    def shared(self) -> list[bool]:
        """Whether two tasks reach it, now or in earlier backwards [n]."""
        return [known.tasks.bit_count() >= 2 for known in self.known]

    @property
    def inside(self) -> int:
        """How many of them, the first ones, are parameters of the model."""
        return sum(known.place < OUTSIDE for known in self.known)

    def learn(self, here: Sequence[int]) -> None:
        """The tasks that reach each in this backward."""
        self.here = list(here)
        for known, tasks in zip(self.known, here, strict=True):
            known.tasks |= tasks

    @cached_property
    def parameters(self) -> list[bool]:
        """Whether it is a parameter [n]. Beside an ``nn.Parameter`` any other leaf is an input."""
        own = [known.own for known in self.known]
        return own if any(own) else [True] * len(own)

    @cached_property
    def order(self) -> list[tuple[int, int]]:
        """When each is used last in the forward pass; all alike where there is no graph."""
        if self.graph is None:
            return [(0, 0)] * len(self.params)
        used = dict(zip(map(id, self.graph.leaves), self.graph.order(), strict=True))
        return [used.get(id(param), (-1, 0)) for param in self.params]


class Record:
    """Parameters by the objects that they are; what is gone is forgotten.

    Args:
        model: Names its parameters; others are numbered as they are met.
    """

    def __init__(self, model: nn.Module | None) -> None:
        self.model = model
        self.entries: dict[int, Known] = {}
        self.outside = 0  #: parameters met outside the model so far
        self._saved: dict[str, int] = {}
        self._inside: weakref.WeakKeyDictionary[type, dict[int, frozenset[int]]] = weakref.WeakKeyDictionary()

    def of(self, param: Tensor) -> Known:
        """What is known of a parameter; one not met before is looked up in the model."""
        known = self._find(param)
        if known is None and self.model is not None:
            self._read_model()
            known = self._find(param)
        if known is None:
            known = self._add(param, f"{NUMBERED}{self.outside}", OUTSIDE + self.outside)
            self.outside += 1
        return known

    def _find(self, param: Tensor) -> Known | None:
        known = self.entries.get(id(param))
        return known if known is not None and known.param() is param else None

    def _add(self, param: Tensor, name: str, place: int) -> Known:
        entries, key = self.entries, id(param)

        def forget(ref: weakref.ref[Tensor]) -> None:
            if key in entries and entries[key].param is ref:
                del entries[key]

        own = isinstance(param, nn.Parameter)
        entries[key] = Known(weakref.ref(param, forget), name, place, self._saved.get(name, 0), own)
        return entries[key]

    def _read_model(self) -> dict[str, Known]:
        """What is known of the model's parameters as they are now, by name."""
        found = {}
        for place, (name, param) in enumerate(() if self.model is None else self.model.named_parameters()):
            known = self._find(param) or self._add(param, name, place)
            known.name, known.place = name, place
            found[name] = known
        return found

    def everything(self, found: Iterable[Tensor] = ()) -> list[Tensor]:
        """All trainable parameters of the model as it is now, those met outside it, and those ``found``."""
        for param in found:
            self.of(param)
        inside = set(map(id, self._read_model().values()))
        alive = [(k.param(), id(k) in inside or k.place >= OUTSIDE) for k in list(self.entries.values())]
        return [param for param, ours in alive if ours and param is not None and param.requires_grad]

    def gone(self, name: str) -> bool:
        """Whether this was a parameter outside the model that is no more, and will not be met again."""
        if not name.startswith(NUMBERED):
            return False
        return all(known.name != name or known.param() is None for known in list(self.entries.values()))

    def probe(self, node: Node, output: int) -> frozenset[int] | None:
        """Places of a compiled function's inputs that an output depends on; seen once per compilation."""
        found = self._inside.setdefault(type(node), {})
        if output not in found:
            seen = depends(node, output)
            if seen is None:
                return None
            found[output] = seen
        return found[output]

    def state_dict(self) -> dict[str, list[int]]:
        """Name -> tasks that have reached it, of the parameters of the model."""
        masks = self._saved | {name: known.tasks for name, known in self._read_model().items()}
        return {name: [i for i in range(mask.bit_length()) if mask >> i & 1] for name, mask in masks.items()}

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self._saved = {name: sum(1 << i for i in tasks) for name, tasks in state.items()}
        for name, known in self._read_model().items():
            known.tasks = self._saved.get(name, 0)

    def __getstate__(self) -> dict[str, Any]:
        """A copy finds the model's parameters by name, others where they are copied along."""
        self._read_model()
        known = [(k.param(), k.name, k.place, k.tasks) for k in list(self.entries.values())]
        saved = {name: mask for _, name, place, mask in known if place < OUTSIDE}
        others = [each for each in known if each[2] >= OUTSIDE and each[0] is not None]
        return {
            "model": self.model,
            "saved": self._saved | saved,
            "others": others,
            "outside": self.outside,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["model"])  # type: ignore[misc]
        self._saved, self.outside = state["saved"], state["outside"]
        for param, name, place, tasks in state["others"]:
            self._add(param, name, place).tasks = tasks
