"""Parameter groups: a Gramian and a strategy state for each, where one for all would mix what differs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
from torch import Tensor, nn

from ...gradients.leaves import Leaves
from ...strategies import Strategy
from ...strategies.base import ALL, Index
from ...strategies.hyperparameters import shown

OTHERS, SELECTED = "others", "selected"  # parameters that no group has; those of a predicate that says yes
APART = 1_000_003  # between the seeds of two groups

WANTED = (
    "groups should be 'layer', modules or parameters, or a function of a parameter's name that gives its "
    "group's, or says whether it is one"
)


class Grouped(Strategy):
    """One strategy per group, as one: their buffers are saved, proposed and committed together.

    Args:
        strategy: The first group's; the others get copies of it. All count the same steps.
        n: groups.
    """

    def __init__(self, strategy: Strategy, n: int) -> None:
        super().__init__(strategy.n_tasks)
        self.parts = nn.ModuleList([strategy, *(deepcopy(strategy) for _ in range(n - 1))])
        for k, part in enumerate(self.each()):
            part.step, part.seed = self.step, (strategy.seed + k * APART) % 2**63

    def each(self) -> Sequence[Strategy]:
        """Those of the groups, in order."""
        return list(self.parts)  # type: ignore[arg-type]

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Tell all of them."""
        for part in self.each():
            part.end_epoch(mean_losses.copy(), None if scores is None else scores.copy())

    def after_step(self, losses: Tensor, present: Index = ALL) -> None:
        """Tell all of them."""
        for part in self.each():
            part.after_step(losses, present)


class Groups:
    """Which group a parameter of the model is in, by its name.

    Args:
        groups: ``"layer"``, the modules that own parameters; modules or parameters, a group each; or a
            function of a parameter's name: its group's name, or True for one group, False or None for none.
        model: Whose parameters these are.

    Raises:
        ValueError: none of these, no model, or no parameter in any group.
    """

    def __init__(self, groups: Any, model: nn.Module | None) -> None:
        wrong = groups != "layer" if isinstance(groups, str) else isinstance(groups, (bytes, type))
        if wrong or not (
            isinstance(groups, (str, Tensor)) or callable(groups) or isinstance(groups, Iterable)
        ):
            raise ValueError(f"{WANTED}, found {shown(groups)}.")
        if model is None:
            raise ValueError("groups= goes by the names of parameters, which model= gives: pass the model.")
        named = dict(model.named_parameters())
        if isinstance(groups, str):
            found = {name: name.rpartition(".")[0] or name for name in named}
        elif callable(groups) and not isinstance(groups, nn.Module):
            found = _by_function(groups, named)
        else:
            found = _by_parts([groups] if isinstance(groups, (Tensor, nn.Module)) else groups, model, named)
        if not found:
            raise ValueError("groups= selects no parameter of the model: nothing would be apart.")
        self.names = tuple(dict.fromkeys([*found.values(), OTHERS]))
        self.place = {name: self.names.index(label) for name, label in found.items()}  #: name -> group

    def columns(self, leaves: Leaves, at: Iterable[int]) -> dict[int, list[int]]:
        """Group -> places of its leaves among those that are measured, of the groups that have any."""
        out: dict[int, list[int]] = {}
        others = self.names.index(OTHERS)
        for c in at:
            out.setdefault(self.place.get(leaves.names[c], others), []).append(c)
        return dict(sorted(out.items()))


def _by_function(label: Callable[[str], Any], named: Iterable[str]) -> dict[str, str]:
    labels = {name: label(name) for name in named}
    kept = {name: SELECTED if x is True else x for name, x in labels.items() if not (x is None or x is False)}
    for name, found in kept.items():
        if not isinstance(found, (str, int)):
            raise ValueError(f"{WANTED}, found {shown(found)} for {name!r}.")
    return {name: str(found) for name, found in kept.items()}


def _by_parts(parts: Iterable[Any], model: nn.Module, named: Mapping[str, Tensor]) -> dict[str, str]:
    """Of a parameter in several parts the first one counts."""
    modules = {id(module): name for name, module in model.named_modules()}
    names, out = {id(param): name for name, param in named.items()}, dict[str, str]()
    for k, part in enumerate(parts):
        if not isinstance(part, (Tensor, nn.Module)):
            raise ValueError(f"{WANTED}, found {shown(part)} among them.")
        params = [part] if isinstance(part, Tensor) else list(part.parameters())
        own = [names[id(param)] for param in params if id(param) in names]
        if not own:
            raise ValueError(f"groups= has a part without a parameter of the model, number {k + 1} of them.")
        label = own[0] if isinstance(part, Tensor) else modules.get(id(part)) or f"group {k + 1}"
        for name in own:
            out.setdefault(name, label)
    return out
