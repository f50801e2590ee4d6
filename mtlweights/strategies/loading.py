"""Strategies of others: a class in a module, in a file, or registered by a package under a name.

This is the only place that runs code because a piece of text names it. The working folder (for a file: the
file's folder) can be imported from while that happens, and not before or after.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import pkgutil
import re
import sys
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType

from ..files.escapes import message_of
from ..specs import did_you_mean
from .base import GramStrategy, JacobianStrategy, LossStrategy, Strategy

ENTRY_POINTS = "mtlweights.strategies"
KINDS = (LossStrategy, GramStrategy, JacobianStrategy)
FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<name>\w+))?", re.DOTALL)

_told: set[str] = set()


def registered(built_in: Collection[str]) -> dict[str, str]:
    """Name -> ``package.module:Class`` of what packages register; none has a name of ``built_in``."""
    found: dict[str, str] = {}
    for name, value in _entry_points(tuple(sys.path)):
        if name not in built_in and found.setdefault(name, value) != value:
            raise ValueError(
                f"Two packages register a strategy {name!r}: {found[name]!r}, {value!r}. Remove one of them."
            )
    return found


@lru_cache(maxsize=1)
def _entry_points(path: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names and values of what is installed on ``path``, read once."""
    return [(point.name, point.value) for point in metadata.entry_points(group=ENTRY_POINTS)]


def warn_of_shadows(built_in: Collection[str]) -> None:
    """Say, once in a process, which registered strategies have a name of ``built_in`` and are ignored."""
    for name, value in _entry_points(tuple(sys.path)):
        if name in built_in and name not in _told:
            _told.add(name)
            warnings.warn(
                f"A package registers {value!r} as strategy {name!r}, which is a built-in one's name: it is "
                f"ignored. Register it by another name, or use {value!r}.",
                stacklevel=3,
            )


def from_module(path: str, name: str) -> type[Strategy]:
    """The class ``package.module:Class``; ``name`` is that itself, or the entry point that stands for it.

    Raises ImportError where the module cannot be imported, ValueError where it has no such strategy.
    """
    module_name, _, class_name = path.partition(":")
    try:
        with _importable(Path.cwd()) if ":" in name else nullcontext():
            module = import_module(module_name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # whatever a module of the user's own does when it is run
        raise ImportError(
            f"Could not import module {module_name!r} of strategy {name!r}: {message_of(error)}."
        ) from error
    try:
        found = pkgutil.resolve_name(path)
    except (AttributeError, ValueError) as error:
        classes = [key for key, value in vars(module).items() if is_usable(value)]
        hint = did_you_mean(class_name, classes)
        raise ValueError(f"No class {class_name!r} in module {module_name!r}{hint}.") from error
    if not is_usable(found):
        raise ValueError(
            f"{path!r} should be a class with all methods of LossStrategy, GramStrategy or "
            f"JacobianStrategy, found {' '.join(repr(found).split())[:80]}."
        )
    return found


def from_file(file: str, name: str | None) -> list[type[Strategy]]:
    """The class ``name`` of a Python file; without a name all strategies that the file defines.

    Raises ValueError: no such file, it does not run, or it has no such strategy.
    """
    path = Path(file).expanduser()
    module = _run(path)
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Strategy) and value.__module__ == module.__name__
    }
    usable = {key: value for key, value in found.items() if is_usable(value)}
    if name is None and usable:
        return list(usable.values())
    if name in usable:
        return [usable[name]]
    if name in found or (name is None and found):
        cls = found[name or next(iter(found))]
        missing = ", ".join(sorted(cls.__abstractmethods__)) or "that weighs"
        raise ValueError(f"{path}: {cls.__name__} has no method {missing}.")
    wanted = f"class {name!r}" if name else "subclass of LossStrategy, GramStrategy or JacobianStrategy"
    hint = did_you_mean(name or "", list(usable))
    raise ValueError(f"{path} defines no {wanted}{hint}. Strategies in it: {', '.join(usable) or 'none'}.")


def _run(path: Path) -> ModuleType:
    """The module of a file, run once for each content it has had, under a name that shadows nothing.

    While it runs, and no longer, modules beside it can be imported.
    """
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}. Expected file.py:Class.") from error
    digest = hashlib.sha256(os.fsencode(path.resolve()) + b"\0" + source).hexdigest()
    name = re.sub(r"\W", "_", f"mtlweights_file_{path.stem}_{digest[:12]}")
    if name in sys.modules:
        return sys.modules[name]
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        with _importable(path.parent.resolve()):
            exec(compile(source, str(path), "exec"), vars(module))
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, KeyboardInterrupt):
            raise
        if isinstance(error, SyntaxError):
            raise ValueError(f"{path}, line {error.lineno}: {error.msg}.") from error
        raise ValueError(f"{path} does not run: {type(error).__name__}: {message_of(error)}.") from error
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder as the last place of the module path, for the while."""
    before = list(sys.path)
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path[:] = before


def code_digest(cls: type[Strategy]) -> str | None:
    """32 hexadecimal digits of the file that a class of the user's own stands in; None for one of ours.

    What that file imports is not in it.
    """
    if cls.__module__.startswith("mtlweights."):
        return None
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None or not os.path.isfile(file):
        return None
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:32]


def is_usable(value: object) -> bool:
    """Whether this is a class of one of the three kinds, with all its methods."""
    return inspect.isclass(value) and issubclass(value, KINDS) and not inspect.isabstract(value)
