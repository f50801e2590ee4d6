"""All checks by name, and how they are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ..strategies import Strategy
from . import behaviour, interface, properties, training
from .properties import PROPERTIES
from .subject import SIZES, Subject, as_subject


def _property(name: str, subject: Subject) -> None:
    """The class declares the property if it has it on the fixed cases, and only then."""
    cls, judged = subject.cls.__name__, Subject(subject.cls).small()
    if not judged.sizes:
        return
    example = next(PROPERTIES[name](judged), None)
    if name in subject.cls.properties:
        assert example is None, f"{cls} declares {name}, but: {example}"
    else:
        every = ", ".join(map(repr, sorted({*subject.cls.properties, name})))
        assert example is not None, (
            f"{cls} is {name} in all cases, and should say so: properties = frozenset({{{every}}})"
        )


def _scale_degree(subject: Subject) -> None:
    """All losses times c multiply the update by ``c ** scale_degree``."""
    judged = subject.small()
    example = next(properties.scale_degree(judged), None)
    assert example is None, f"scale_degree = {properties.declared_degree(judged)}, but: {example}"


#: name -> what raises AssertionError for a subject; in the order in which they are best read
CHECKS: dict[str, Callable[[Subject], None]] = {
    "construction": interface.construction,
    "class_attributes": interface.class_attributes,
    "space": interface.space,
    "results": interface.results,
    "finite": behaviour.finite,
    "signed_weights": behaviour.signed_weights,
    "inputs_unchanged": behaviour.inputs_unchanged,
    "repeatable": behaviour.repeatable,
    "state_in_buffers": behaviour.state_in_buffers,
    "absent_tasks": behaviour.absent_tasks,
    "order_of_present": behaviour.order_of_present,
    "no_host_read": interface.no_host_read,
    "both_calls": training.both_calls,
    "skipped_step": training.skipped_step,
    "resume": training.resume,
    "scale_degree": _scale_degree,
    **{name: partial(_property, name) for name in PROPERTIES},
}

#: without these the others say nothing
BASIC = ("construction", "class_attributes", "results")


def check(
    name: str,
    strategy: str | type[Strategy] | Subject,
    hyperparameters: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = SIZES,
) -> None:
    """Run one check, one of ``CHECKS``, on a strategy.

    Args:
        name: The check.
        strategy: A class, a registry name, ``package.module:Class`` or ``file.py:Class``.
        hyperparameters: Instead of the class's defaults. The properties are always those of the defaults.
        sizes: Numbers of tasks T.

    Raises:
        AssertionError: the check fails; the message says what was expected and what came.
        ValueError: there is no such check or strategy.
    """
    if name not in CHECKS:
        raise ValueError(f"No check named {name!r}. There are: {', '.join(CHECKS)}.")
    _run(name, as_subject(strategy, hyperparameters, sizes))


def findings(
    strategy: str | type[Strategy] | Subject,
    hyperparameters: Mapping[str, Any] | None = None,
    sizes: Sequence[int] = SIZES,
) -> Iterator[tuple[str, str | None]]:
    """Run all checks: each one's name, and what is wrong or None.

    After a failure of what all others stand on (``construction``, ``class_attributes``, ``results``) they
    are left out.
    """
    subject = as_subject(strategy, hyperparameters, sizes)
    for name in CHECKS:
        try:
            _run(name, subject)
        except AssertionError as error:
            yield name, " ".join(str(error).split())
            if name in BASIC:
                return
        else:
            yield name, None


def _run(name: str, subject: Subject) -> None:
    """Whatever a strategy raises is a failure of the check."""
    try:
        CHECKS[name](subject)
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"raised {type(error).__name__}: {error}") from error
