"""``mtlweights train tagging`` on the device: it learns what it learns on the CPU, and how long it takes."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import math
import tempfile
from pathlib import Path
from typing import Any

from records import Failed, Log

NEEDED = ("accelerate", "tqdm", "seqeval", "sklearn", "filelock", "yaml")
STRATEGIES = ("uw", "pcgrad", "graddrop")
EPOCHS = {"cuda": 3, "cpu": 1}
APART = 0.1  #: of two runs' mean dev score


def run(names: list[str], log: Log) -> None:
    """Every precision that the device has; left out, with what is missing, where fit cannot run."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        log.add("fit", "left out", None, f"it needs {', '.join(missing)}")
        print(f"  fit is left out: it needs {', '.join(missing)}")
        return
    here = log.device.partition(":")[0]
    chosen, epochs = [name for name in STRATEGIES if name in names], EPOCHS[here]
    expected = {name: _train(name, "cpu", "no", epochs) for name in chosen}
    for precision in ("no", "bf16", "fp16") if here == "cuda" else ("no",):
        log.checks(
            f"fit on tagging, {epochs} epochs, precision={precision}",
            chosen,
            lambda n, p=precision: _compare(_train(n, here, p, epochs), expected[n]),
        )


def _train(name: str, device: str, precision: str, epochs: int) -> dict[str, Any]:
    """The result of the command."""
    from mtlweights.cli import main

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        command = ["train", "tagging", "-s", name, "--epochs", str(epochs), "--device", device]
        error = io.StringIO()
        with contextlib.redirect_stderr(error):
            status = main([*command, "--precision", precision, "--out", folder])
        if status:
            raise Failed(error.getvalue().strip().splitlines()[-1])
        path = next(p for p in Path(folder).rglob("*.json") if "dev" in json.loads(p.read_text()))
        return dict(json.loads(path.read_text()))


def _score(result: dict[str, Any]) -> float:
    """The mean over tasks of the first metric on dev."""
    return sum(next(iter(metrics.values())) for metrics in result["dev"].values()) / len(result["dev"])


def _compare(found: dict[str, Any], expected: dict[str, Any]) -> str:
    mine, theirs = _score(found), _score(expected)
    if not (math.isfinite(mine) and abs(mine - theirs) <= APART):
        raise Failed(f"dev score {mine:.3f}, {theirs:.3f} in float32 on the CPU")
    return f"{mine:.3f} in {found['seconds']:.1f} s; CPU {theirs:.3f} in {expected['seconds']:.1f} s"
