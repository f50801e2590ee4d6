"""The page of a run, made anew after each part."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import records
import torch
from arms import versions
from records import Record

from mtlweights import strategies
from mtlweights.strategies import GramStrategy, JacobianStrategy, LossStrategy

TITLES = {
    "checks": "The balancer against the CPU in float64",
    "reads": "Host reads per step",
    "speed": "Time and memory",
    "fit": "`fit` on the device",
}
FAMILIES = {LossStrategy: "loss-based", GramStrategy: "Gramian", JacobianStrategy: "Jacobian"}
TEXT = {
    "checks": """\
A check per strategy, on a toy of three tasks, with frozen, unused and partly shared layers, for three steps.
*worst* is the largest length of a difference of gradients, or of final parameters, over that expected.""",
    "reads": """\
Operations for which the host waited for the device (`torch.cuda.set_sync_debug_mode`) in one whole training
step, after six: forward, backward, optimizer, `zero_grad`. At most 0 for a loss-based strategy, 1 for a
Gramian one; nothing is promised for the others. On a CPU, calls that would wait on a GPU, not judged.""",
    "speed": """\
Medians of ratios within a round, with quartiles; a round runs every step in a random order, some times end to
end between two CUDA events. *plain*: forward, one backward of the summed losses; *floor*: forward, T calls
of `torch.autograd.grad`. No optimizer step. Memory: peak above plain's, in units of T P floats, at T = 8.""",
    "fit": """\
`mtlweights train tagging`: mean dev score and seconds of training, beside the CPU's in float32.""",
}


def write(page: Path, folder: Path) -> None:
    """The page, of the parts whose records are in ``folder``, with the machine they were made on."""
    lines = ["# On a GPU: is it right, and what does it cost\n"]
    lines += ["Made by `make gpu` on", f"{(folder / 'machine.txt').read_text().strip()}.\n"]
    found = {part: records.read(folder / f"{part}.jsonl") for part in TITLES}
    failed = [(part, r) for part, those in found.items() for r in those if r.ok is False]
    total = sum(r.ok is not None for those in found.values() for r in those)
    lines.append(f"{total - len(failed)} of {total} checks and targets hold.\n")
    if failed:
        lines += ["## What does not hold\n", "| part | group | check | found |", "|---|---|---|---|"]
        lines += [f"| {p} | {r.group} | {r.name} | {_cell(f'{r.value} {r.error}')} |" for p, r in failed]
        lines.append("")
    for part, those in found.items():
        if those:
            lines += [f"## {TITLES[part]}\n", f"{TEXT[part]}\n", *_tables(part, those), ""]
    page.write_text("\n".join(lines).rstrip() + "\n")


def _cell(text: str) -> str:
    return text.strip().replace("|", "\\|")


def _tables(part: str, those: list[Record]) -> Iterator[str]:
    if part == "checks":
        yield from ("| group | hold | of | worst |", "|---|---|---|---|")
        for group, rows in _groups(those):
            rows = [r for r in rows if r.ok is not None]
            held = [r for r in rows if r.ok]
            yield f"| {group} | {len(held)} | {len(rows)} | {_worst(held)} |"
        return
    if part == "reads":
        yield from ("| strategies | by | waits | which |", "|---|---|---|---|")
        for group, rows in _groups(those):
            yield from _by_family(group, rows)
        return
    for group, rows in _groups(those):
        yield from (f"### {group}\n", "| | |", "|---|---|")
        yield from (f"| {r.name} | {_cell(f'{r.value} {r.error}')} |" for r in rows)
        yield ""


def _worst(held: list[Record]) -> str:
    """The largest difference found, or the word that all of them found."""
    values = [record.value for record in held if record.value]
    try:
        return f"{max(map(float, values)):.0e}" if values else ""
    except ValueError:
        return ", ".join(sorted(set(values)))


def _family(name: str) -> str:
    if name == "plain":
        return "the plain sum"
    kind = strategies.get(name)
    return next(word for base, word in FAMILIES.items() if issubclass(kind, base))


def _by_family(group: str, rows: list[Record]) -> Iterator[str]:
    """Strategies of one family that wait as often, in one line."""

    def key(row: Record) -> tuple[str, str]:
        return _family(row.name), row.value or row.error.partition(" ")[0]

    for (family, count), same in groupby(sorted(rows, key=key), key):
        names = [row.name for row in same]
        shown = ", ".join(names) if len(names) < 8 else f"{len(names)} of them"
        yield f"| {family} | {group} | {count} | {shown} |"


def _groups(those: Iterable[Record]) -> Iterator[tuple[str, list[Record]]]:
    for group, rows in groupby(those, lambda r: r.group):
        yield group, list(rows)


def machine(device: str) -> str:
    """Card, driver and versions."""
    name, driver = "a CPU, tiny models: a dry run that says nothing about speed", ""
    if device.startswith("cuda"):
        name = torch.cuda.get_device_name(torch.device(device))
        driver = f", driver {_driver()}, CUDA {torch.version.cuda}"
    return f"{name}{driver}; torch {torch.__version__}, {versions()}"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
