"""The index of error texts, read from the source of the package, each with its cure from ``cures.yaml``."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

PACKAGE = Path(__file__).parents[1] / "mtlweights"
CURES = yaml.safe_load((Path(__file__).parent / "cures.yaml").read_text(encoding="utf-8"))
ROOMS = {  #: of the index, in this order: title -> where its texts are raised
    "In your loop": ("balancer/", "gradients/", "integrations/"),
    "The strategy and its options": ("strategies/", "specs.py"),
    "Data, tasks and models": ("problems/",),
    "Training": ("train/", "cli/train.py", "cli/launched.py"),
    "Comparing and tuning": ("bench/", "cli/", "__init__.py"),
    "A trained model": ("serve/",),
    "Testing a strategy": ("testing/",),
    "Files": ("files/",),
}


def texts() -> Iterator[tuple[str, str]]:
    """File and text of every error and warning of the package, ``…`` where something is filled in."""
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        known = _constants(tree)
        for node in ast.walk(tree):
            for part in _messages(node):
                text = " ".join(_said(part, known).split())
                if re.search(r"[^\W_]{2}", text):  # else it hands on what another one said
                    yield path.relative_to(PACKAGE).as_posix(), text


def _messages(node: ast.AST) -> list[ast.expr]:
    """The arguments of a raise or a warning that hold its text."""
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        return [
            a for a in node.exc.args if isinstance(a, ast.Constant | ast.JoinedStr | ast.BinOp | ast.Name)
        ]
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "warnings.warn":
        return node.args[:1]
    return []


def _constants(tree: ast.Module) -> dict[str, ast.expr]:
    """Names that a module gives a text once, and nothing else."""
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            found.setdefault(node.targets[0].id, []).append(node.value)
    text = ast.Constant | ast.JoinedStr | ast.BinOp
    return {name: v[0] for name, v in found.items() if len(v) == 1 and isinstance(v[0], text)}


def _said(node: ast.expr, known: dict[str, ast.expr]) -> str:
    """A message as its reader sees it."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else "…"
    if isinstance(node, ast.JoinedStr):
        return "".join(_said(part, known) for part in node.values)
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _said(node.left, known) + _said(node.right, known)
    if isinstance(node, ast.FormattedValue):
        return _said(node.value, known) if isinstance(node.value, ast.Name) else "…"
    if isinstance(node, ast.Name) and node.id in known:
        return _said(known[node.id], {k: v for k, v in known.items() if k != node.id})
    return "…"


def cure(text: str) -> str:
    """What to do about it, as Markdown: what the text itself asks for, else the first cure that fits.

    Raises LookupError where neither says anything.
    """
    asked = re.split(r"[:;.] (?=(?:" + CURES["asks"] + r")\b)", text, maxsplit=1)
    if len(asked) == 2:
        return _sentence(asked[1])
    for entry in CURES["cures"]:
        match = re.search(entry["when"], text)
        if match:
            said = entry["do"]
            return _sentence(match.expand(said)) if r"\1" in said else said
    raise LookupError(text)


def index() -> str:
    """Every text with its cure, as Markdown, by where it is met."""
    parts, left = [], list(dict.fromkeys(texts()))
    for title, places in ROOMS.items():
        here = [pair for pair in left if pair[0].startswith(places)]
        left = [pair for pair in left if pair not in here]
        rows = dict.fromkeys(text for _, text in here)
        lines = [f"| {_cell(text)} | {cure(text)} |" for text in sorted(rows, key=str.lower)]
        parts.append("\n".join([f"## {title}", "", "| text | cure |", "|---|---|", *lines, ""]))
    if left:
        raise LookupError(f"no room for {left}")
    return "\n".join(parts)


def _sentence(asked: str) -> str:
    """What a text asks for, by itself."""
    asked = re.sub(r"^pip install", "run pip install", asked)
    asked = re.sub(
        r"^Give (?=in [^a-z]|(?:at least|below|above|between|positive|from)\b)", "Give a value ", asked
    )
    if re.fullmatch(r"\W*(Give|Use|Take)[\W_]*", asked):
        asked = asked.rstrip(".") + ", as the text says"
    return _cell(asked[0].upper() + asked[1:].rstrip(".") + ".")


def _cell(text: str) -> str:
    """As a table's cell, without any markup."""
    return re.sub(r"([|*_<>\[\]{}`$~@])", r"\\\1", text)
