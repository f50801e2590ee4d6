"""A page for each strategy, made when the documentation is built: docs/strategies/NAME.md.

The rule as mathematics and the other names come from rules.yaml, the trajectories from trajectories.json, the
rest from the class: a fact stands in one place.
"""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import drawing
import yaml

from mtlweights.strategies import GramStrategy, LossStrategy, Strategy
from mtlweights.strategies.catalogue import describe
from mtlweights.strategies.citation import bibtex
from mtlweights.strategies.registry import STRATEGIES
from mtlweights.testing import PROPERTIES

HERE = Path(__file__).parent
RULES: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "rules.yaml").read_text(encoding="utf-8"))
LETTERS = """\
{math}`\\ell_i` is the loss of task i, {math}`g_i` its gradient in the shared parameters, {math}`w_i` its
weight, {math}`d = \\sum_i w_i g_i` the direction that takes the place of the summed gradient,
{math}`G_{ij} = g_i \\cdot g_j`; sums are over the T tasks, or the m of them that a batch has;
{math}`\\Delta` is the simplex."""
READING = """\
The two losses of [the toy problem](../toy.md), the first times 0.1; 400 steps at a rate of 0.06 from two
starts (dots) through the Balancer at the default hyperparameters. Thin: lines of equal mean loss; thick: the
Pareto set, where no loss can fall without the other rising. A ring is where a run ends. How far it gets in
400 steps says little of a method; which way it goes, what its rule does."""
LLMS = """\
# mtlweights

> Weights the losses of a multi-task PyTorch model by any of {} strategies, in the loop one has, and compares
> them on one's own tasks.

Three lines: `import mtlweights`; `balancer = mtlweights.Balancer("pcgrad", tasks=["a", "b"], model=model)`;
`loss = balancer({{"a": loss_a, "b": loss_b}})` and `loss.backward()` as before. Start with `equal`.

## Pages
"""
CLAIMS = {
    "non_conflicting": "to first order no task's loss rises",
    "permutation_equivariant": "the order of the tasks does not matter",
    "loss_scale_invariant": "one task's loss times s > 0 leaves the update as it is",
    "zero_at_stationary": "d = 0 wherever a combination of the gradients, weights of at least 0, is zero",
    "linear_under_scaling": "with the losses times s, d is linear in s",
}


def page(name: str) -> str:
    """The page of a strategy, as MyST Markdown."""
    found, rule, cls = describe(name), RULES[name], STRATEGIES[name]
    known = [f"`{name}`", *(f"`{alias}`" for alias in found["aliases"]), *rule["names"]]
    parts = [
        f"# {rule['title']}",
        found["summary"],
        "Names: " + ", ".join(known) + ".",
        f'```python\nbalancer = mtlweights.Balancer("{name}", tasks, model)\n```',
        "## The rule",
        *(f"```{{math}}\n{formula.strip()}\n```" for formula in rule["tex"].strip().split("\n\n")),
        LETTERS,
        "## What it costs and needs",
        _facts(found, cls),
        "## Properties that tests attack",
        _properties(found),
        "## Hyperparameters",
        _hyperparameters(found, cls),
        "## When it fails",
        rule["fails"],
        "## On a problem in two dimensions",
        drawing.figure(name, rule["title"]),
        READING,
        "## Source, and where this differs from it",
        f"```{{eval-rst}}\n.. autoclass:: {found['class']}\n```",
        f"```bibtex\n{bibtex(name, cls)}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _facts(found: dict[str, Any], cls: type[Strategy]) -> str:
    sees = "the losses" if issubclass(cls, LossStrategy) else "the task gradients"
    sees = "inner products of the task gradients" if issubclass(cls, GramStrategy) else sees
    rows = {
        "family": found["family"],
        "sees": sees,
        "backward passes per step": found["backward"],
        "state in a checkpoint": found["state"] or "none",
        "calls it needs": ", ".join(f"`balancer.{call}`" for call in found["needs"].split(", ") if call)
        or "none",
        "heads": {"plain": "get their plain gradient", "weighted": "get their task's weight"}[found["heads"]],
        "losses below 0": "refused" if cls(3).positive_losses else "allowed",
        "weights below 0": "possible" if found["signed_weights"] else "never",
        "optimizer": "plain SGD: d is Adam's step already" if cls.replaces_optimizer else "any",
    }
    return "| property | value |\n|---|---|\n" + "\n".join(
        f"| {key} | {value} |" for key, value in rows.items()
    )


def _properties(found: dict[str, Any]) -> str:
    """What the class claims; the contract suite attacks it for every strategy."""
    degree = found["scale_degree"]
    scale = (
        "- No power of c describes what all losses times c do to the update."
        if degree is None
        else f"- All losses times c multiply the update by c to the power {degree:.3g}, from c = 1e-6 to 1e6."
    )
    has = [f"- `{name}`: {CLAIMS[name]}." for name in found["properties"]]
    lacks = [f"`{name}`" for name in PROPERTIES if name not in found["properties"]]
    return "\n".join(
        [
            "At the default hyperparameters; tests look for counterexamples, also of what is not claimed"
            " ([how](../extending.md)).",
            "",
            *(has or ["- None of the five properties."]),
            *([f"- Not: {', '.join(lacks)}."] if has and lacks else []),
            scale,
        ]
    )


def _hyperparameters(found: dict[str, Any], cls: type[Strategy]) -> str:
    if not found["hyperparameters"]:
        return "None."
    texts = _arguments(cls)
    lines = ["| name | default | searched | what it is |", "|---|---|---|---|"]
    for name, of in found["hyperparameters"].items():
        said = texts.get(
            name, "learning rate of the learned weights; the Balancer's" if name == "weight_lr" else ""
        )
        lines.append(f"| `{name}` | `{of['default']!r}` | {_range(of['space'])} | {said} |")
    return "\n".join(lines)


def _range(space: Any) -> str:
    if space is None:
        return "no"
    if isinstance(space, list):
        return ", ".join(f"`{value}`" for value in space)
    if space[0] == "ratios":
        return f"weights whose ratios are at most {space[1]:g}"
    return f"{space[0]:g} to {space[1]:g}" + (", by decades" if space[2:] else "")


def _arguments(cls: type[Strategy]) -> dict[str, str]:
    """What the docstring says of each argument."""
    text = (inspect.getdoc(cls) or "").partition("\nArgs:\n")[2].partition("\n\n")[0]
    found = re.findall(r"^    (\w+): (.*?)(?=^    \w|\Z)", text, re.DOTALL | re.MULTILINE)
    return {
        name: re.sub(r"[|*<]", r"\\\g<0>", " ".join(said.split()).replace("``", "`")) for name, said in found
    }


def write(folder: Path = HERE / "strategies") -> None:
    """All pages; a file is written only where its text is another, so that a second build is quick."""
    folder.mkdir(exist_ok=True)
    for name in STRATEGIES:
        path, text = folder / f"{name}.md", page(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
    for path in folder.glob("*.md"):
        if path.stem not in STRATEGIES:
            path.unlink()


def llms() -> str:
    """llms.txt: what the package is and where its pages are, for programs that read."""
    lines = [LLMS.format(len(STRATEGIES))]
    for path in sorted(HERE.glob("*.md")):
        title = re.search(r"^# (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
        if title and path.stem != "index":
            lines.append(f"- [{title[1]}]({path.stem}.html)")
    lines += ["", "## Strategies", ""]
    for name in STRATEGIES:
        summary = (inspect.getdoc(STRATEGIES[name]) or "").partition("\n")[0]
        lines.append(
            f"- [{name}](strategies/{name}.html): {summary} Names: {', '.join(RULES[name]['names'])}."
        )
    return "\n".join(lines) + "\n"
