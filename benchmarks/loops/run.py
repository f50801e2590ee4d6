"""Trains the scripts of ``examples/`` on real data without and with balancing, and writes down what came out.

``python benchmarks/loops/run.py`` computes the runs that ``results.json`` lacks, one after the other, and
writes ``results.md`` and the generated parts of ``docs/real_loops.md``. ``run.py --pages`` only writes.
"""

from __future__ import annotations

import difflib
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EXAMPLES = ROOT / "examples"
PAGE = ROOT / "docs" / "real_loops.md"
RESULTS = HERE / "results.json"
MARK = "  # mtlweights"
ORDER = ("none", "uw", "pcgrad", "gradnorm")
#: script -> metric -> (level, whether higher is better)
LEVELS = {
    "lightning_table": {"rings RMSE": (2.15, False)},
    "trainer_tokens": {"NER F1": (0.48, True), "POS accuracy": (0.91, True)},
    "plain_bert": {"relatedness Pearson": (0.80, True)},
}


def original(text: str) -> str:
    """The script as it was: without the marked lines."""
    return "".join(line for line in text.splitlines(True) if not line.endswith(f"{MARK}\n"))


def diff(script: str) -> str:
    """What balancing adds to a script, each place with the line before and after it."""
    text = (EXAMPLES / f"{script}.py").read_text(encoding="utf-8")
    lines = difflib.unified_diff(original(text).splitlines(), text.splitlines(), n=1, lineterm="")
    shown = ["@@" if line.startswith("@@") else line.removesuffix(MARK) for line in list(lines)[2:]]
    return "```diff\n" + "\n".join(shown) + "\n```\n"


def train(script: str, strategy: str, *options: str) -> dict:
    """One run in a process of its own; what its last line says."""
    command = [sys.executable, str(EXAMPLES / f"{script}.py"), "--strategy", strategy, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    start = time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(f"{script} --strategy {strategy} failed:\n{done.stderr}")
    found = json.loads(done.stdout.splitlines()[-1])
    return {
        "script": script,
        "strategy": strategy,
        "seed": 0,
        **found,
        "all seconds": round(time.time() - start, 1),
        "load": round(os.getloadavg()[0], 1),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} thread(s), "
        f"torch {torch.__version__}",
    }


def table(results: list[dict]) -> str:
    """What was reached, one line per run, and the level it should reach."""
    lines = ["| script | strategy | test scores | level | training, s |", "|---|---|---|---|---:|"]
    for script, levels in LEVELS.items():
        runs = [run for run in results if run["script"] == script]
        for run in sorted(runs, key=lambda run: ORDER.index(run["strategy"])):
            scores = ", ".join(f"{name} {value:.3f}" for name, value in run["test"].items())
            reached = ", ".join(level(name, run["test"][name], *levels[name]) for name in levels)
            cells = (f"`{script}.py`", f"`{run['strategy']}`", scores, reached, run["training seconds"])
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def level(name: str, value: float, wanted: float, higher: bool) -> str:
    """The level, and whether ``value`` reaches it."""
    reached = value >= wanted if higher else value <= wanted
    return f"{name} {'≥' if higher else '≤'} {wanted:g}: {'reached' if reached else '**missed**'}"


def missing(results: list[dict]) -> str:
    """A sentence on the runs that are not there, or nothing."""
    there = {(run["script"], run["strategy"]) for run in results}
    gone = [f"`{a}.py` `{b}`" for a in LEVELS for b in ORDER if (a, b) not in there]
    return f"\nNot run yet: {', '.join(gone)}.\n" if gone else ""


def replaced(page: str, results: list[dict]) -> str:
    """The page with the table, and every script's lines, made anew between their markers."""
    blocks = {script: diff(script) for script in LEVELS}
    blocks["results"] = table(results) + missing(results)
    for name, block in blocks.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
        page = re.sub(pattern, lambda found, b=block: found[1] + b + found[2], page, flags=re.DOTALL)
    return page


def write(results: list[dict]) -> None:
    """The three files, from the results."""
    RESULTS.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    machines = sorted({run["machine"] for run in results})
    head = "# Three loops on real data\n\nMade by `python benchmarks/loops/run.py`; seed 0, one run each. "
    head += f"Machine: {'; '.join(machines)}; shared with other work, so times say little.\n\n"
    (HERE / "results.md").write_text(head + table(results) + missing(results), encoding="utf-8")
    if PAGE.exists():
        PAGE.write_text(replaced(PAGE.read_text(encoding="utf-8"), results), encoding="utf-8")


if __name__ == "__main__":
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else []
    done = {(run["script"], run["strategy"]) for run in results}
    todo = [(a, b) for a in LEVELS for b in ORDER if (a, b) not in done and "--pages" not in sys.argv]
    for script, strategy in todo:
        results.append(train(script, strategy))
        print(results[-1], flush=True)
        write(results)
    write(results)
