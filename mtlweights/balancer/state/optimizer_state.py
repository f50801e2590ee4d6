"""Balancers' states inside an optimizer's: saved with it, loaded with it, in whichever order they meet.

torch has no hook for the loading of an optimizer that nobody has met yet, and drops what it does not know. So
``Optimizer.load_state_dict`` is wrapped here, once, and remembers such a state until a balancer is attached.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Mapping
from typing import Any, Protocol

from torch.optim import Optimizer

KEY = "mtlweights"  # the first balancer's; "mtlweights 2", ... for further ones
INNER = ("optimizer", "base_optimizer", "_optimizer")  # where wrappers keep the optimizer they wrap


class Stateful(Protocol):
    """What is saved along: a Balancer."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it, or raise ValueError and leave everything as it was."""


class Attached:
    """The balancers attached to one optimizer, in the order they came, and loaded states none has taken."""

    def __init__(self) -> None:
        self._balancers: list[weakref.ref[Stateful]] = []
        self._waiting: list[Mapping[str, Any]] = []
        self._handle: Any = None

    def add(self, balancer: Stateful, optimizer: Optimizer) -> None:
        """Save this balancer's state along; it takes up one that was loaded before it came."""
        if balancer in self._alive():
            return
        if self._waiting:
            self._waiting = _deal([balancer], self._waiting)
        if self._handle is None:
            self._handle = optimizer.register_state_dict_post_hook(self._save)
        self._balancers.append(weakref.ref(balancer, self._remove))

    def load(self, states: list[Mapping[str, Any]]) -> None:
        """Deal out what was loaded; what is left waits."""
        self._waiting = _deal(self._alive(), states)

    def _alive(self) -> list[Stateful]:
        return [balancer for ref in self._balancers if (balancer := ref()) is not None]

    def _remove(self, gone: weakref.ref[Stateful]) -> None:
        self._balancers.remove(gone)
        if not self._balancers:
            self._handle.remove()
            self._handle = None

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state |= {_key(k): balancer.state_dict() for k, balancer in enumerate(self._alive())}


_ATTACHED: weakref.WeakKeyDictionary[Optimizer, Attached] = weakref.WeakKeyDictionary()


def attach(balancer: Stateful, optimizers: list[Optimizer]) -> None:
    """Save a balancer's state in these optimizers' from now on."""
    for optimizer in optimizers:
        _ATTACHED.setdefault(optimizer, Attached()).add(balancer, optimizer)


def unwrap(optimizer: Any) -> list[Optimizer]:
    """The torch optimizers in what a loop calls its optimizer: itself, or what it wraps, from outside in.

    Raises:
        ValueError: none.
    """
    found: list[Optimizer] = []
    wrapper, seen = optimizer, set()
    while wrapper is not None and id(wrapper) not in seen:
        seen.add(id(wrapper))
        if isinstance(wrapper, Optimizer) and hasattr(wrapper, "_optimizer_state_dict_post_hooks"):
            found.append(wrapper)
        wrapper = next((x for name in INNER if (x := getattr(wrapper, name, None)) is not None), None)
    if not found:
        raise ValueError(f"attach() takes a torch optimizer, found {type(optimizer).__name__}.")
    return found


def _key(place: int) -> str:
    return KEY if place == 0 else f"{KEY} {place + 1}"


def _deal(balancers: list[Stateful], states: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give each balancer the state saved at its place or, where that is another's, the first that fits.

    Returns the states that are left.

    Raises:
        ValueError: a state is left, and a balancer whom none fits.
    """
    left, refusals = dict(enumerate(states)), []
    for place, balancer in enumerate(balancers):
        refused = None
        for k in sorted(left, key=lambda k: (k != place, k)):
            try:
                balancer.load_state_dict(left[k])
            except ValueError as error:
                refused = refused or error
            else:
                del left[k]
                break
        else:
            refusals += [] if refused is None else [refused]
    if left and refusals:
        raise refusals[0]
    return list(left.values())


def _wrap() -> None:
    load = Optimizer.load_state_dict

    @functools.wraps(load)
    def load_state_dict(self: Optimizer, state_dict: Any) -> None:
        states: list[Mapping[str, Any]] = []
        while isinstance(state_dict, Mapping) and _key(len(states)) in state_dict:
            states.append(state_dict[_key(len(states))])
        if states or self in _ATTACHED:
            _ATTACHED.setdefault(self, Attached()).load(states)
        load(self, state_dict)

    Optimizer.load_state_dict = load_state_dict  # type: ignore[method-assign]


_wrap()
