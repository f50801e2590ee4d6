"""The steps that the benchmark times: ours, and TorchJD's and LibMTL's on the same model.

Neither peer is a dependency: what is absent is left out. Every step ends with the gradients set to None.
"""

from __future__ import annotations

import copy
import importlib
import importlib.util
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import product
from typing import Any

import torch
from models import Problem
from torch import Tensor, nn

from mtlweights import Balancer, strategies

Step = Callable[[], None]
Setting = tuple[int | None, bool]  # TorchJD's parallel_chunk_size and optimize_gramian_computation

LOSS_BASED = ("equal", "uw", "dwa", "famo")
EVERY = 8

TORCHJD: dict[str, tuple[str, dict[str, object]]] = {
    "pcgrad": ("PCGrad", {}),
    "cagrad": ("CAGrad", {"c": 0.5}),
}
LEAN: Setting = (1, True)
LIBMTL = {"pcgrad": "PCGrad"}  # 1.1.5's CAGrad has the number of tasks, 3, in its code


# ours -------------------------------------------------------------------------------------------------


def ours(
    problem: Problem, name: str, *, call: bool = False, reread: bool = False, **arguments: object
) -> Step:
    """By ``balancer.backward``, or by the scalar (``call``); ``reread``: then ``after_step``."""
    balancer = Balancer(name, problem.tasks, problem.model, **arguments)  # type: ignore[arg-type]

    def step() -> None:
        if call:
            balancer(problem.losses()).backward()
        else:
            balancer.backward(problem.losses())
        problem.zero_grad()
        if reread:
            balancer.after_step(problem.losses)

    return step


def references(problem: Problem) -> dict[str, Step]:
    def plain() -> None:
        torch.stack(list(problem.losses().values())).sum().backward()
        problem.zero_grad()

    def floor() -> None:
        losses = list(problem.losses().values())
        for loss in losses:
            keep = loss is not losses[-1]
            torch.autograd.grad(loss, problem.params, retain_graph=keep, allow_unused=True)
        problem.zero_grad()

    return {"plain": plain, "floor": floor}


def with_features(problem: Problem) -> Step:
    """On a copy: the hook on its trunk must not run in other arms."""
    own = copy.deepcopy(problem)
    return ours(own, "pcgrad", gradients="features", features=own.trunk)


def our_modes(problem: Problem) -> dict[str, Step]:
    return {
        "pcgrad": ours(problem, "pcgrad"),
        "pcgrad, rows": ours(problem, "pcgrad", gradients="rows"),
        "pcgrad, gramian": ours(problem, "pcgrad", gradients="gramian"),
        "pcgrad, features": with_features(problem),
    }


def all_arms(problem: Problem) -> dict[str, Step]:
    """Everything the first table needs."""
    arms = references(problem) | our_modes(problem)
    arms |= {name: ours(problem, name, call=True) for name in LOSS_BASED}
    arms["famo, after_step"] = ours(problem, "famo", call=True, reread=True)
    arms["cagrad"] = ours(problem, "cagrad")
    arms["pcgrad, call"] = ours(problem, "pcgrad", call=True)
    if len(problem.tasks) == 2:
        arms[f"every {EVERY}"] = ours(problem, "pcgrad", every=EVERY)
    return arms | peer_steps(problem, list(TORCHJD))


def of_family(problem: Problem, family: type) -> dict[str, Step]:
    """Every registered strategy that runs on one batch without validation data."""
    arms = {}
    for name in strategies.names():
        cls = strategies.get(name)
        if issubclass(cls, family) and cls.batches == 1 and "validate" not in cls.needs:
            arms[name] = ours(problem, name)
    return arms


def that_run(arms: dict[str, Step]) -> tuple[dict[str, Step], dict[str, str]]:
    """Without the peers' steps that raise; and what those said."""
    good, errors = {}, {}
    for name, step in arms.items():
        try:
            if name.startswith(("torchjd", "libmtl")):
                step()
        except Exception as error:  # theirs, of any kind
            errors[name] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        else:
            good[name] = step
    return good, errors


# peers ------------------------------------------------------------------------------------------------


def versions() -> str:
    """Those installed."""
    found = [n for n in ("torchjd", "LibMTL") if importlib.util.find_spec(n) is not None]
    return ", ".join(f"{name} {metadata.version(name)}" for name in found) or "no peer installed"


def peer_steps(problem: Problem, names: Sequence[str]) -> dict[str, Step]:
    """Those of the installed peers."""
    steps: dict[str, Step] = {}
    fastest: Setting | None = None
    for name in names:
        found = torchjd_steps(problem, name)
        if found:
            fastest = fastest or min(found, key=lambda setting: _seconds(found[setting]))
            steps[f"torchjd {name}"] = next(iter(found.values()))
            steps[f"torchjd {name}, fastest"] = found[fastest]
        steps |= libmtl_steps(problem, name)
    return steps


def torchjd_steps(problem: Problem, name: str) -> dict[Setting, Step]:
    """A step for each of TorchJD's settings that runs here, the defaults first if they do."""
    if importlib.util.find_spec("torchjd") is None:
        return {}
    try:
        _aggregator(name)
    except ImportError:  # of its solver
        return {}
    steps: dict[Setting, Step] = {}
    for chunk, by_gram in product((None, 1), (False, True)):
        step = _torchjd_step(problem, name, chunk, by_gram)
        try:
            step()
        except (RuntimeError, TypeError, ValueError):  # no vmap of this model, no Gramian of this method
            problem.zero_grad()
            continue
        steps[chunk, by_gram] = step
    return steps


def _seconds(step: Step) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else int
    wait()
    start = time.perf_counter()
    step()
    wait()
    return time.perf_counter() - start


def _aggregator(name: str) -> Any:
    cls, arguments = TORCHJD[name]
    return getattr(importlib.import_module("torchjd.aggregation"), cls)(**arguments)


def _torchjd_step(problem: Problem, name: str, chunk: int | None, by_gram: bool) -> Step:
    autojac, aggregator = importlib.import_module("torchjd.autojac"), _aggregator(name)
    shared = list(problem.trunk.parameters())

    def step() -> None:
        features = problem.trunk(problem.inputs)
        losses = list(problem.losses_at(features).values())
        autojac.mtl_backward(losses, features=features, parallel_chunk_size=chunk)
        autojac.jac_to_grad(shared, aggregator, optimize_gramian_computation=by_gram)
        problem.zero_grad()

    return step


def _libmtl_class(kind: str, name: str) -> Any:
    """A class of LibMTL from its own file: the packages' ``__init__`` need torchvision and more."""
    for package in ("LibMTL", f"LibMTL.{kind}"):
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            sys.modules[package] = importlib.util.module_from_spec(spec)  # not executed
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SyntaxWarnings of its docstrings
        return getattr(importlib.import_module(f"LibMTL.{kind}.{name}"), name)


def libmtl_steps(problem: Problem, name: str) -> dict[str, Step]:
    """``LibMTL name``, on the same trunk and heads."""
    if importlib.util.find_spec("LibMTL") is None or name not in LIBMTL:
        return {}
    architecture, weighting = _libmtl_class("architecture", "HPS"), _libmtl_class("weighting", LIBMTL[name])

    class Model(architecture, weighting):  # type: ignore[misc]
        def zero_grad_share_params(self) -> None:
            # It reads param.grad after this: written for a torch whose zero_grad left zeros.
            self.encoder.zero_grad(set_to_none=False)

    model = Model(
        problem.tasks,
        lambda: problem.trunk,
        problem.heads,
        rep_grad=False,
        multi_input=False,
        device=problem.inputs.device,
    )
    nn.Module.train(model)
    model.init_param()

    def step() -> None:
        out = model(problem.inputs)
        losses: list[Tensor] = [problem.criterion(out[t], problem.targets[t]) for t in problem.tasks]
        model.backward(torch.stack(losses))
        problem.zero_grad()

    return {f"libmtl {name}": step}
