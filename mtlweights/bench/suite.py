"""Suites: a YAML file that names problems, strategies, seeds and settings, read into runs.

.. code-block:: yaml

    problems:                       # a list of specs, or a mapping from spec to its own settings
      tagging: {epochs: 8}
      csv:houses.csv:regress=price,classify=kind:
    strategies: [equal, fixed:alpha=0.3, pcgrad]    # single-task training is always added
    seeds: 3                        # that many, from 0; or a list
    settings: {batch_size: 32}      # of train.Settings, for every problem
    worth: 0.5                      # Δm points that matter; or a mapping from spec to points
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import problems, strategies
from ..problems.registry import OWN
from ..specs import parse_spec
from ..train import Settings
from .protocol import Protocol
from .runspec import SINGLE, RunSpec, spec_key
from .yamlfile import Located, read_yaml

if TYPE_CHECKING:
    from ..problems import Problem

KEYS = ("problems", "strategies", "seeds", "settings", "worth")
MOST_SEEDS = 10_000
SETTINGS = tuple(field.name for field in fields(Settings) if field.name != "seed")


@dataclass(frozen=True)
class Suite:
    """What is compared: every strategy, and single-task training, on every problem with every seed."""

    name: str
    problems: Mapping[str, Mapping[str, Any]]  #: spec -> its own settings
    strategies: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    worth: Mapping[str, float] = field(default_factory=dict)  #: spec -> smallest difference that matters

    def __post_init__(self) -> None:
        for what, specs in (("problem", self.problems), ("strategy", self.strategies)):
            seen: dict[str, str] = {}
            for spec in specs:
                # two spellings of one spec would be one run counted twice
                key = repr(spec_key(spec))
                if key in seen:
                    raise ValueError(f"{what} {spec!r} is listed twice, first as {seen[key]!r}.")
                seen[key] = spec
            if not seen:
                raise ValueError(f"no {what} is listed; name at least one.")

    def runs(self, name: str, problem: Problem, overrides: Mapping[str, Any]) -> list[RunSpec]:
        """The runs on the problem of spec ``name``, seed by seed.

        Later settings win: the problem's defaults, the suite's, the suite's for this problem, ``overrides``.

        Raises:
            ValueError: a setting out of range, or a problem with one task: nothing to balance.
        """
        if len(problem.tasks) < 2:
            raise ValueError(f"problem {name!r} has one task; comparing strategies takes two or more.")
        layers = (problem.settings, self.settings, self.problems[name], overrides)
        chosen = {key: value for layer in layers for key, value in layer.items()}
        found = []
        for seed in self.seeds:
            settings = Settings(**{**chosen, "seed": seed})
            single = [RunSpec(name, "equal", task.name, settings) for task in problem.tasks]
            found += single + [RunSpec(name, strategy, None, settings) for strategy in self.strategies]
        return found


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
            raise key.error(f"unknown key {key.value!r}; " + _nearest(key.value, KEYS))
    by_name = {key.value: value for key, value in content.items()}
    for needed in ("problems", "strategies"):
        if needed not in by_name:
            raise found.error(f"a suite needs {needed!r}: a list of specs.")
    problems = _problems(by_name["problems"])
    arms = _strategies(by_name["strategies"])
    seeds = _seeds(by_name["seeds"]) if "seeds" in by_name else (0, 1, 2)
    settings = _settings(by_name["settings"]) if "settings" in by_name else {}
    worth = _worth(by_name["worth"], problems) if "worth" in by_name else {}
    try:
        return Suite(Path(path).stem, problems, arms, seeds, settings, worth)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings no run has.

    Raises:
        ValueError: an unknown name, or a value :class:`train.Settings` refuses.
    """
    for key in settings:
        if key == "seed":
            raise ValueError("seed is no setting of a suite: seeds come from its key 'seeds'.")
        if key not in SETTINGS:
            raise ValueError(f"unknown setting {key!r}; " + _nearest(key, SETTINGS))
    Settings(**settings)


def _problems(node: Located) -> dict[str, dict[str, Any]]:
    is_mapping = isinstance(node.value, dict)
    pairs = (
        node.mapping("problems").items() if is_mapping else ((item, None) for item in node.items("problems"))
    )
    found: dict[str, dict[str, Any]] = {}
    known = problems.problems()
    for spec, own in pairs:
        name, _ = _parse(spec)
        if name not in known and name.partition(":")[0] not in OWN:
            raise spec.error(f"unknown problem {name!r}; " + _nearest(name, known))
        if spec.value in found:
            raise spec.error(f"{spec.value!r} is listed twice.")
        found[spec.value] = _settings(own) if own is not None and own.value is not None else {}
    return found


def _strategies(node: Located) -> tuple[str, ...]:
    found = []
    for spec in node.items("strategies"):
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
    return tuple(found)


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


def _settings(node: Located) -> dict[str, Any]:
    settings: dict[str, Any] = {}
    for key, value in node.mapping("settings").items():
        settings[key.value] = value.plain()
        try:
            check_settings({key.value: value.plain()})
        except (ValueError, TypeError) as error:
            raise key.error(str(error)) from None
    return settings


def _parse(spec: Located) -> tuple[str, dict[str, Any]]:
    if not isinstance(spec.value, str):
        raise spec.error(f"expected a spec, name or name:key=value, found {spec.shown()}.")
    try:
        return parse_spec(spec.value)
    except ValueError as error:
        raise spec.error(str(error)) from None


def _nearest(name: Any, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(names)}."
