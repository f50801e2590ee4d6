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


class Rider(Protocol):
    """What rides: a Balancer."""

    def state_dict(self) -> dict[str, Any]:
        """The state."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore it, or raise ValueError and leave everything as it was."""


class Ride:
    """The balancers attached to one optimizer, in the order they came, and loaded states none has taken."""

    def __init__(self) -> None:
        self._riders: list[weakref.ref[Rider]] = []
        self._waiting: list[Mapping[str, Any]] = []
        self._handle: Any = None

    def board(self, rider: Rider, optimizer: Optimizer) -> None:
        """Let ``rider`` ride; it takes up a state that was loaded before it came."""
        if rider in self._alive():
            return
        if self._waiting:
            self._waiting = _deal([rider], self._waiting)
        if self._handle is None:
            self._handle = optimizer.register_state_dict_post_hook(self._save)
        self._riders.append(weakref.ref(rider, self._leave))

    def load(self, states: list[Mapping[str, Any]]) -> None:
        """Deal out what was loaded; what is left waits."""
        self._waiting = _deal(self._alive(), states)

    def _alive(self) -> list[Rider]:
        return [rider for ref in self._riders if (rider := ref()) is not None]

    def _leave(self, gone: weakref.ref[Rider]) -> None:
        self._riders.remove(gone)
        if not self._riders:
            self._handle.remove()
            self._handle = None

    def _save(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state |= {_key(k): rider.state_dict() for k, rider in enumerate(self._alive())}


_RIDES: weakref.WeakKeyDictionary[Optimizer, Ride] = weakref.WeakKeyDictionary()


def board(rider: Rider, optimizers: list[Optimizer]) -> None:
    """Let a balancer's state ride in these optimizers' from now on."""
    for optimizer in optimizers:
        _RIDES.setdefault(optimizer, Ride()).board(rider, optimizer)


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


def _deal(riders: list[Rider], states: list[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Give each rider the state saved at its place or, where that is another's, the first that fits.

    Returns the states that are left.

    Raises:
        ValueError: a state is left, and a rider whom none fits.
    """
    left, refusals = dict(enumerate(states)), []
    for place, rider in enumerate(riders):
        refused = None
        for k in sorted(left, key=lambda k: (k != place, k)):
            try:
                rider.load_state_dict(left[k])
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
        if states or self in _RIDES:
            _RIDES.setdefault(self, Ride()).load(states)
        load(self, state_dict)

    Optimizer.load_state_dict = load_state_dict  # type: ignore[method-assign]


_wrap()
