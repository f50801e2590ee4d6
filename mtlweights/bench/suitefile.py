"""Suites: a YAML file that names problems, strategies, seeds and settings, read into runs.

.. code-block:: yaml

    problems:                       # a list of specs, or a mapping from spec to its own settings
      tagging: {epochs: 8}
      csv:houses.csv:regress=price,classify=kind:
    strategies: [equal, fixed:alpha=0.3, pcgrad]    # or a study's best.yaml; single-task is always added
    seeds: 3                        # that many, from 0; or a list
    budget: tuned8                  # instead: trials and fresh seeds of every arm, see `budget.BUDGETS`
    settings: {batch_size: 32}      # of train.Settings, for every problem
    front: 9                        # under a budget: points of a front of static weights
    worth: 0.5                      # Δm points that matter; or a mapping from spec to points
    axis: sharing                   # instead of strategies: see `axes.AXES`; or hidden=[32,64]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

from .. import problems, strategies
from ..files import schemas
from ..problems import scales
from ..problems.registry import OWN
from ..specs import nearest, parse_spec
from . import budget as budgets
from .axes import Axis, axis_of
from .best import ENDINGS, Best
from .protocol import Protocol
from .runspec import SINGLE
from .suite import MOST_SEEDS, Suite, check_settings
from .yamlfile import Located, read_yaml

KEYS = ("problems", "strategies", "seeds", "budget", "front", "settings", "worth", "axis", "study")
_STUDY = {"name": str, "problem": str, "trials": int}


def load_suite(path: str | Path | None = None) -> Suite:
    """Read and check a suite; ``None`` is the embedded one, which downloads nothing and takes minutes.

    Names are checked here. Options of problems and strategies are checked by ``run_suite``, once the tasks
    are known and before anything is trained.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, an unknown key, name or setting, a duplicate; the message holds the line.
    """
    if path is None:
        with resources.as_file(resources.files(__package__) / "suites" / "embedded.yaml") as file:
            return load_suite(file)
    found = read_yaml(path)
    content = found.mapping("a suite")
    for key in content:
        if key.value not in KEYS:
            raise key.error(f"unknown key {key.value!r}; " + nearest(key.value, KEYS))
    by_name = {key.value: value for key, value in content.items()}
    axis = _axis(by_name["axis"]) if "axis" in by_name else None
    for needed in ("problems", *(() if axis else ("strategies",))):
        if needed not in by_name:
            raise found.error(f"a suite needs {needed!r}: a list of specs.")
    problems = _problems(by_name["problems"])
    arms, bests = _strategies(by_name["strategies"]) if "strategies" in by_name else (("equal",), {})
    seeds = _seeds(by_name["seeds"]) if "seeds" in by_name else (0, 1, 2)
    settings = _settings(by_name["settings"]) if "settings" in by_name else {}
    worth = _worth(by_name["worth"], problems) if "worth" in by_name else {}
    own = {spec: _budget(node) for spec, node in _own_budgets(by_name["problems"])}
    budget = _budget(by_name["budget"]) if "budget" in by_name else "default" if axis else None
    try:
        front = by_name["front"].plain() if "front" in by_name else 0
        more: dict[str, Any] = {"budgets": own, "front": front, "axis": axis, "bests": bests}
        suite = Suite(Path(path).stem, problems, arms, seeds, settings, worth, **more)
        if own and budget is None:
            raise ValueError("a problem has a budget of its own: give the suite one too.")
        if front and budget is None:
            raise ValueError("a front is drawn under a budget: give the suite one, as in budget: default.")
        if budget is not None:
            suite = suite.under(budget)
        return replace(suite, seeds=seeds) if "seeds" in by_name else suite
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _axis(node: Located) -> Axis:
    """By its name, or as a mapping of one name to arms, each a mapping of options and settings."""
    try:
        if isinstance(node.value, dict):
            ((name, arms),) = node.plain().items()
            return Axis(str(name), {str(label): own or {} for label, own in arms.items()})
        return axis_of(node.value if isinstance(node.value, str) else node.shown())
    except (ValueError, TypeError, AttributeError) as error:
        raise node.error(str(error)) from None


def _budget(node: Located) -> str:
    try:
        return budgets.budget_of(node.value).name
    except ValueError as error:
        raise node.error(str(error)) from None


def _own_budgets(node: Located) -> Iterable[tuple[str, Located]]:
    for spec, own in node.mapping("problems").items() if isinstance(node.value, dict) else ():
        if own is not None and isinstance(own.value, dict):
            yield from ((spec.value, value) for key, value in own.value.items() if key.value == "budget")


def _problems(node: Located) -> dict[str, dict[str, Any]]:
    is_mapping = isinstance(node.value, dict)
    pairs = (
        node.mapping("problems").items() if is_mapping else ((item, None) for item in node.items("problems"))
    )
    found: dict[str, dict[str, Any]] = {}
    known = problems.problems()
    for spec, own in pairs:
        name, _ = _parse(spec, _unscaled)
        if name not in known and name.partition(":")[0] not in OWN:
            raise spec.error(f"unknown problem {name!r}; " + nearest(name, known))
        if spec.value in found:
            raise spec.error(f"{spec.value!r} is listed twice.")
        found[spec.value] = _settings(own, "budget") if own is not None and own.value is not None else {}
    return found


def read_arm(text: str) -> str | Best:
    """What stands in the place of a strategy: a spec, or the ``best.yaml`` of a study.

    Raises:
        FileNotFoundError: no such file.
        ValueError: the file is no study's best.
    """
    if not text.endswith(ENDINGS):
        return text
    content = {key.value: value for key, value in read_yaml(text).mapping("a study's best").items()}
    suite = load_suite(text)
    try:
        study = content["study"].plain() if "study" in content else {}
        schemas.check(study, _STUDY, "its key 'study'")
        scales.split(study["problem"])
        if len(suite.problems) != 1 or len(suite.strategies) != 1 or suite.bests:
            raise ValueError("it has several problems or strategies")
    except ValueError as error:
        raise ValueError(f"{text} is no best.yaml that mtlweights tune wrote: {error}.") from None
    (problem, own), (strategy,) = next(iter(suite.problems.items())), suite.strategies
    return Best(study["name"], study["problem"], study["trials"], problem, strategy, own)


def _strategies(node: Located) -> tuple[tuple[str, ...], dict[str, Best]]:
    found, bests = [], {}
    for spec in node.items("strategies"):
        if isinstance(spec.value, str) and isinstance(best := _arm(spec), Best):
            bests[best.name] = best
            found.append(best.name)
            continue
        name, options = _parse(spec)
        if name == SINGLE:  # always an arm, so naming it changes nothing
            if options:
                raise spec.error(f"{SINGLE!r} takes no options: it trains each task alone.")
            continue
        try:
            strategies.get(name)
        except (ValueError, ImportError, OSError) as error:
            raise spec.error(str(error)) from None
        found.append(spec.value)
    return tuple(found), bests


def _arm(spec: Located) -> str | Best:
    try:
        return read_arm(spec.value)
    except (ValueError, FileNotFoundError) as error:
        raise spec.error(str(error)) from None


def _seeds(node: Located) -> tuple[int, ...]:
    if isinstance(node.value, int) and not isinstance(node.value, bool) and 0 < node.value <= MOST_SEEDS:
        return tuple(range(node.value))
    if not isinstance(node.value, list):
        found = f"found {node.shown()}."
        raise node.error(
            f"seeds should be a number above 0, at most {MOST_SEEDS}, or a list of seeds, {found}"
        )
    seeds = []
    for seed in node.value:
        if not isinstance(seed.value, int) or isinstance(seed.value, bool) or not 0 <= seed.value < 2**32:
            raise seed.error(f"a seed should be a whole number of at least 0, found {seed.shown()}.")
        if seed.value in seeds:
            raise seed.error(f"seed {seed.value} is listed twice.")
        seeds.append(seed.value)
    if not seeds:
        raise node.error("no seed is listed; name at least one.")
    return tuple(seeds)


def _worth(node: Located, problems: Iterable[str]) -> dict[str, float]:
    found = node.mapping("worth").items() if isinstance(node.value, dict) else ()
    for key, _ in found:
        if key.value not in problems:
            raise key.error(f"worth of {key.value!r}, which is no problem of this suite.")
    by_name = {key.value: value for key, value in found} or dict.fromkeys(problems, node)
    for value in by_name.values():
        try:
            Protocol({"": value.value})
        except ValueError:
            raise value.error(f"worth should be a number of at least 0, found {value.shown()}.") from None
    return {name: float(value.value) for name, value in by_name.items()}


def _settings(node: Located, without: str = "") -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in node.mapping("settings").items():
        if key.value == without:
            continue
        settings[key.value] = value.plain()
        try:
            check_settings({key.value: value.plain()})
        except (ValueError, TypeError) as error:
            raise key.error(str(error)) from None
    return settings


def _unscaled(spec: str) -> str:
    """A problem's spec without the factors of its losses."""
    return scales.split(spec)[0]


def _parse(spec: Located, part: Callable[[str], str] = str) -> tuple[str, dict[str, Any]]:
    if not isinstance(spec.value, str):
        raise spec.error(f"expected a spec, name or name:key=value, found {spec.shown()}.")
    try:
        return parse_spec(part(spec.value))
    except ValueError as error:
        raise spec.error(str(error)) from None
