"""A strategy of the user's own by name: ``package.module:Class`` or ``path/file.py:Class``.

This is the only place that runs code because a piece of text names it. The working folder (for a file: the
file's folder) can be imported from while that happens, and not before or after.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .base import Strategy

_FILE = re.compile(r"(.+\.py)(?::(\w+))?")


def split_file(name: str) -> tuple[Path, str | None] | None:
    """File and class of ``FILE.py`` or ``FILE.py:Class``; None for any other name."""
    match = _FILE.fullmatch(name)
    return (Path(match[1]), match[2]) if match else None


def load_module(name: str, strategy: str) -> ModuleType:
    """Import a module; from the working folder too, unless ``strategy`` is an entry point.

    Raises:
        ImportError: it cannot be imported, or raises whatever it raises on the way.
    """
    try:
        with _importable(Path.cwd()) if ":" in strategy else nullcontext():
            return import_module(name)
    except (Exception, SystemExit) as error:
        reason = str(error) if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ImportError(f"Could not import module {name!r} of strategy {strategy!r}: {reason}.") from error


def load_file(path: Path) -> ModuleType:
    """The module of a file, under a name that shadows nothing; run again only if the file has changed.

    Raises:
        ValueError: it cannot be run.
        OSError: it cannot be read.
    """
    source = path.read_bytes()
    module_name = f"_file_{path.stem}_{hashlib.sha256(bytes(path.resolve()) + source).hexdigest()[:16]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        with _importable(path.parent.resolve()):
            exec(compile(source, str(path), "exec"), vars(module))
        return module
    except SyntaxError as error:
        del sys.modules[module_name]
        raise ValueError(f"{path}, line {error.lineno}: {error.msg}.") from error
    except (Exception, SystemExit) as error:
        del sys.modules[module_name]
        raise ValueError(f"{path} does not run: {type(error).__name__}: {error}") from error


def in_file(path: Path, name: str | None) -> list[type[Strategy]]:
    """The usable strategies that a file defines, or the one named.

    Raises:
        ValueError: there is none, or the file cannot be run.
        OSError: it cannot be read.
    """
    module = load_file(path)
    found = {
        key: value
        for key, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Strategy) and value.__module__ == module.__name__
    }
    usable = {key: value for key, value in found.items() if not inspect.isabstract(value)}
    if name is None and usable:
        return list(usable.values())
    if name in usable:
        return [usable[name]]
    if name in found or (name is None and found):
        cls = found[name or next(iter(found))]
        missing = ", ".join(sorted(cls.__abstractmethods__))
        raise ValueError(f"{path}: {cls.__name__} has no method {missing}.")
    wanted = f"class {name!r}" if name else "subclass of LossStrategy, GramStrategy or JacobianStrategy"
    raise ValueError(f"{path} defines no {wanted}. Strategies in it: {', '.join(usable) or 'none'}.")


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


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """The folder as the last place of the module path, for the while."""
    place = str(folder)
    sys.path.append(place)
    try:
        yield
    finally:
        for index in range(len(sys.path) - 1, -1, -1):
            if sys.path[index] == place:
                del sys.path[index]
                break
