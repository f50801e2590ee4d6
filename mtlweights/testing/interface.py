"""What a strategy is from outside: how it is built, what its class says, what it takes and gives."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from ..balancer import Balancer
from ..strategies import ALL, GramStrategy, JacobianStrategy, LossStrategy, Strategy
from ..strategies.space import read_range
from .cases import ordinary, validated
from .harness import Harness
from .properties import PROPERTIES
from .subject import Subject

_PLACES = ("shared", "last_shared", "features", "all")


def construction(subject: Subject) -> None:
    """Builds for every number of tasks, also without any hyperparameter, and refuses none at all."""
    for n_tasks in subject.sizes:
        found = subject.make(n_tasks)
        Subject(subject.cls).make(n_tasks)
        assert getattr(found, "n_tasks", None) == n_tasks, "__init__ should call super().__init__(n_tasks)"
    try:
        subject.cls(0)
    except ValueError:
        return
    raise AssertionError(f"{subject.cls.__name__}(0) should raise ValueError")


def class_attributes(subject: Subject) -> None:
    """The class has a docstring and a family, and its attributes are what they should be."""
    cls, name = subject.cls, subject.cls.__name__
    assert "__doc__" in vars(cls) and inspect.getdoc(cls), f"{name} has no docstring"
    assert cls.family, f'{name}.family is empty: say what kind it is, such as family = "gramian"'
    arguments = list(inspect.signature(cls).parameters.values())[1:]
    loose = [p.name for p in arguments if p.kind is not p.KEYWORD_ONLY]
    assert not loose, f"hyperparameters should be keyword-only (after a *): {', '.join(loose)}"
    known = {p.name for p in arguments}
    assert hasattr(cls, "space"), f"{name} declares no space: say space = {{}} if there is nothing to tune"
    _only("space", cls.space, [*known, "weight_lr"])
    _only("needs", cls.needs, cls.hooks())
    _only("properties", cls.properties, PROPERTIES)
    _only("heads", [cls.heads], ("plain", "weighted"))
    _only("measured_at", [cls.measured_at], _PLACES)
    degree = cls.scale_degree
    assert degree is None or isinstance(degree, (int, float)), (
        f"scale_degree should be a number, found {degree!r}"
    )
    if issubclass(cls, GramStrategy):
        assert isinstance(cls.batches, int) and cls.batches >= 1, (
            f"batches should be at least 1, found {cls.batches!r}"
        )
    if issubclass(cls, JacobianStrategy):
        names = (*cls.row_state, *cls.tensor_state, *cls.memory)
        twice = f"row_state, tensor_state and memory name one twice: {', '.join(names)}"
        assert len(set(names)) == len(names), twice


def space(subject: Subject) -> None:
    """Every range of ``space`` holds the default, and the Balancer takes its ends."""
    cls = subject.cls
    defaults = {p.name: p.default for p in inspect.signature(cls).parameters.values()}
    defaults["weight_lr"] = cls.weight_lr
    for name, declared in cls.space.items():
        for n_tasks in subject.sizes:
            try:
                range_ = read_range(name, declared)
                range_.fixed(name, defaults[name], n_tasks)
            except ValueError as error:
                raise AssertionError(f"space should hold the default: {error}") from error
            for value in range_.ends(n_tasks):
                _builds_with(cls, n_tasks, {name: value})


def _builds_with(cls: type[Strategy], n_tasks: int, options: dict[str, Any]) -> None:
    try:
        Balancer(cls, [str(i) for i in range(n_tasks)], **options)
    except Exception as error:
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise AssertionError(
            f"space allows {given}, but for {n_tasks} tasks that raised {type(error).__name__}: {error}"
        ) from error


def _only(attribute: str, values: Any, known: Any) -> None:
    for value in values:
        assert value in known, f"{attribute} holds {value!r}, known here: {', '.join(known) or 'nothing'}"


def results(subject: Subject) -> None:
    """Every method returns its type and shape, for float32 and float64, and nothing of the state itself."""
    for n_tasks in subject.sizes:
        for dtype in (torch.float32, torch.float64):
            harness = Harness(subject.make(n_tasks), dtype)
            for n in range(2):
                result = harness.step(ordinary(n_tasks, n))
                _finite(result.update, f"T = {n_tasks}, {dtype}")
        if isinstance(harness.strategy, GramStrategy) and "validate" in subject.cls.hooks():
            harness.step(validated(n_tasks, 2))
            _lookahead(harness.strategy, n_tasks)


def _lookahead(strategy: GramStrategy, n_tasks: int) -> None:
    found = strategy.lookahead(np.arange(n_tasks))
    shape = None if found is None else np.shape(found)
    assert shape in (None, (n_tasks,)), f"lookahead should return [m] = [{n_tasks}] or None, found {shape}"


def _finite(values: np.ndarray, where: str) -> None:
    assert np.isfinite(values).all(), f"{where}: the update is not finite"


def no_host_read(subject: Subject) -> None:
    """``combine`` reads no value on the host: fake tensors, which have none, pass through it."""
    if not issubclass(subject.cls, LossStrategy):
        return
    for present in (ALL, np.array([0])):
        n_tasks = subject.few()[-1]
        strategy, mode = subject.make(n_tasks), FakeTensorMode()
        assert isinstance(strategy, LossStrategy)
        for module in strategy.modules():
            module._buffers |= {k: mode.from_tensor(b) for k, b in module._buffers.items() if b is not None}
            for key, param in module._parameters.items():
                if param is not None:
                    module._parameters[key] = nn.Parameter(mode.from_tensor(param.detach()))
        with mode:
            losses = torch.rand(n_tasks if present is ALL else 1, requires_grad=True)
            try:
                value = strategy.combine(losses, present)
                torch.autograd.grad(value, [losses, *strategy.parameters()], allow_unused=True)
            except Exception as error:
                said = str(error).strip().partition("\n")[0]
                raise AssertionError(
                    "combine reads a value on the host (item, float, if tensor, numpy), or uses a tensor "
                    f"that is no buffer: {type(error).__name__}: {said}"
                ) from error
