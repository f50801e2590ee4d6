"""Which code decided a result: digests of syntax trees, so that comments and docstrings may change."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from .. import problems, strategies
from ..problems import registry, scales
from ..specs import parse_spec

_ROOT = __name__.split(".")[0]
#: what every run goes through; the modules these import, directly or not, are in the digest as well
ENGINE = ("balancer.balancer", "strategies.base", "train.fitting", "problems.problem", "bench.run")
#: lists of everything there is: a strategy or a problem more decides nothing about the others
_LISTS: tuple[str, ...] = (
    "",
    "strategies",
    "strategies.registry",
    "strategies.catalogue",
    "problems",
    "problems.registry",
)
_LISTS += ("bench", "bench.code", "bench.results", "bench.runspec", "train", "balancer")
_LISTS += ("files", "files.atomic", "files.escapes", "files.schemas")  # and how it is written down


def library(problem: str, strategy: str) -> dict[str, str]:
    """Digests of the library's code that decides a run: ``shared`` by all strategies, and the strategy's own.

    A strategy of the user's own is no part of it: `run.code_of` knows its file.
    """
    cls = strategies.get(parse_spec(strategy)[0])
    loader = registry.PROBLEMS.get(parse_spec(scales.split(problem)[0])[0])
    data = loader.__module__ if loader else f"{problems.__name__}.data.table"
    shared = [*(f"{_ROOT}.{name}" for name in ENGINE), data]
    ours = cls.__module__.startswith(f"{_ROOT}.")
    return {"shared": _digest(shared), "strategy": _digest([cls.__module__]) if ours else ""}


def _digest(roots: Iterable[str]) -> str:
    left, seen = list(roots), set[str]()
    while left:
        name = left.pop()
        if name not in seen and name not in {f"{_ROOT}.{own}".rstrip(".") for own in _LISTS}:
            seen.add(name)
            left += _read(name)[1]
    text = "".join(f"{name} {_read(name)[0]}\n" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


@cache
def _read(name: str) -> tuple[str, tuple[str, ...]]:
    """Digest of a module's syntax tree, and the modules of ours that it imports."""
    spec = importlib.util.find_spec(name)
    assert spec is not None and spec.origin is not None
    path = Path(spec.origin)
    source = path.read_bytes()
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = [module for node in ast.walk(ast.parse(source)) for module in _imported(node, package)]
    return tree_digest(source), tuple(dict.fromkeys(found))


def tree_digest(source: bytes) -> str:
    """Of a module's syntax tree: comments, docstrings and layout are not in it."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        if isinstance(node, kinds) and ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def _imported(node: ast.AST, package: str) -> Iterable[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if alias.name.split(".")[0] == _ROOT)
    if isinstance(node, ast.ImportFrom):
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        if base.split(".")[0] == _ROOT:
            yield base
            yield from (m for alias in node.names if _is_module(m := f"{base}.{alias.name}"))


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
