"""A Balancer's strategy: made from a name, a class or an instance, and bound to one balancer."""

from __future__ import annotations

import gc
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

from .. import strategies
from ..files.escapes import message_of
from ..specs import did_you_mean
from . import Strategy
from .hyperparameters import shown
from .loading import is_usable

#: strategy instances in use, and the balancer of each
_bound: WeakKeyDictionary[Strategy, ref[Any]] = WeakKeyDictionary()


def make_strategy(
    strategy: str | type[Strategy] | Strategy,
    n_tasks: int,
    hyperparameters: Mapping[str, Any],
    others: Sequence[inspect.Parameter] = (),
) -> Strategy:
    """An instance for ``n_tasks`` tasks from a name, a class or an instance.

    ``others`` are the arguments that the caller takes itself, which a misspelt one may have meant.
    """
    if isinstance(strategy, Strategy):
        if hyperparameters:
            raise ValueError(
                f"{', '.join(hyperparameters)}: hyperparameters belong to the constructor of the "
                f"{type(strategy).__name__} instance, or pass the class instead."
            )
        if strategy.n_tasks != n_tasks:
            raise ValueError(f"The strategy was built for {strategy.n_tasks} tasks, but there are {n_tasks}.")
        _check_kind(type(strategy))
        return strategy
    cls = strategies.get(strategy) if isinstance(strategy, str) else strategy
    if not (isinstance(cls, type) and issubclass(cls, Strategy)):
        raise ValueError(
            f"strategy should be a name, a Strategy class or an instance, found {shown(strategy)}."
        )
    _check_kind(cls)
    _check_keywords(cls, hyperparameters, [p.name for p in others])
    try:
        return cls(n_tasks, **hyperparameters)
    except (ValueError, KeyboardInterrupt):
        raise
    except BaseException as error:  # of a class of the user's own
        raise ValueError(
            f"{cls.__name__}({n_tasks}) raised {type(error).__name__}: {message_of(error)}."
        ) from error


def _check_kind(cls: type[Strategy]) -> None:
    if not is_usable(cls):
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ValueError(
            f"{cls.__name__} is no whole strategy: it should be a LossStrategy, GramStrategy or "
            f"JacobianStrategy{f' and lacks {missing}' if missing else ''}."
        )


def keywords(made: Callable[..., Any]) -> list[inspect.Parameter]:
    """What may be said by keyword alone when one is made: a strategy's hyperparameters."""
    return [p for p in inspect.signature(made).parameters.values() if p.kind is p.KEYWORD_ONLY]


def _check_keywords(cls: type[Strategy], hyperparameters: Mapping[str, Any], others: Sequence[str]) -> None:
    accepted = keywords(cls)
    for name in hyperparameters:
        if name not in [p.name for p in accepted]:
            known = ", ".join(p.name for p in accepted) or "none"
            raise ValueError(
                f"Strategy {cls.__name__} has no hyperparameter {name!r}{_meant(name, accepted, others)}. "
                f"It takes: {known}."
            )


def _meant(name: str, accepted: Sequence[inspect.Parameter], others: Sequence[str]) -> str:
    """What a wrong keyword may have meant: a hyperparameter of the strategy's, else one of the others."""
    names = [p.name for p in accepted]
    if "weight" in name:  # the word that most libraries have for it
        per_task = [p.name for p in accepted if "Sequence[float]" in str(p.annotation)]
        names = [n for n in per_task if n in ("alpha", "preference")] or names
        if len(names) == 1 and names[0] in per_task:
            return f" (did you mean {names[0]!r}?)"
    return did_you_mean(name, names) or did_you_mean(name, others)


def bind(strategy: Strategy, balancer: object) -> None:
    """Note whose strategy this is.

    Raises:
        ValueError: another balancer uses the same instance, and each would move the state of both.
    """
    owner = _bound.get(strategy)
    if owner is not None and owner() is not None:
        gc.collect()  # one that was dropped may still lie in a cycle
        if owner() is not None:
            raise ValueError(
                f"This {type(strategy).__name__} is in use by another balancer, and has one state: pass the "
                "class or a name, or an instance for each."
            )
    _bound[strategy] = ref(balancer)
