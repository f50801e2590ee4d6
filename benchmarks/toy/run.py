"""Runs methods on the two-dimensional toy problem; writes where each ends: ``results.json``, ``results.md``.

``OMP_NUM_THREADS=1 python benchmarks/toy/run.py --out DIR --jobs 2``, then ``figure.py --out DIR``. DIR keeps
one file per run; a run that is there is not computed again. Ten to twenty minutes, most of them FAMO's.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from descent import by_weights, has_weights, through_balancer

from mtlweights.problems.data.toy import STARTS, distance, losses

HERE = Path(__file__).parent
KEEP = 10  #: every so many steps a point of the trajectory is kept
HIT = 0.05  #: this near, a point counts as on the front
#: Steps that are also taken through the Balancer, and must be the same to SAME, two steps' length: between
#: opposed gradients, as at (0, 0), a difference by rounding multiplies with every step.
CHECK, SAME = 200, 2e-3


@dataclass(frozen=True)
class Protocol:
    """One paper's experiment; ``methods``: spec -> title of its panel."""

    paper: str
    starts: tuple[tuple[float, float], ...]
    scale: float
    steps: int
    methods: dict[str, str]


PROTOCOLS = {
    "nash": Protocol(
        "Nash-MTL, figure 1",
        STARTS,
        0.1,
        35_000,
        {
            "equal": "Equal weights",
            "pcgrad": "PCGrad",
            "cagrad:c=0.4": "CAGrad, c = 0.4",
            "mgda": "MGDA",
            "nash_mtl": "Nash-MTL",
            "imtl_g": "IMTL-G",
            "fairgrad": "FairGrad",
            "famo:gamma=0": "FAMO, gamma = 0",
            "aligned_mtl": "Aligned-MTL",
            "upgrad": "UPGrad",
            "dualproj": "DualProj",
            "config": "ConFIG",
        },
    ),
    "famo": Protocol(
        "FAMO, figure 1",
        ((-8.5, 7.5), (-8.5, 5.0), (0.0, 0.0), (9.0, 9.0), (10.0, -8.0)),
        0.1,
        50_000,
        {
            "equal": "Equal weights",
            "mgda": "MGDA",
            "pcgrad": "PCGrad",
            "cagrad:c=0.4": "CAGrad, c = 0.4",
            "nash_mtl": "Nash-MTL",
            "famo:gamma=0": "FAMO, gamma = 0",
        },
    ),
    "cagrad": Protocol(
        "CAGrad, figure 1",
        ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0)),
        1.0,
        100_000,
        {
            "equal": "Equal weights",
            "mgda": "MGDA",
            "pcgrad": "PCGrad",
            "cagrad:c=0.5": "CAGrad, c = 0.5",
        },
    ),
}


def path_of(folder: Path, key: str, spec: str, start: int) -> Path:
    """The file of a run."""
    return folder / f"{key}-{spec.replace(':', '-')}-{start + 1}.npz"


def run(key: str, spec: str, start: int, folder: Path) -> str:
    """One run, kept in ``folder``: the thinned trajectory and the first step near the front (-1: none)."""
    path, protocol = path_of(folder, key, spec, start), PROTOCOLS[key]
    if path.exists():
        return f"{path.name}: there already"
    torch.set_num_threads(1)
    arguments = (spec, protocol.starts[start], protocol.scale)
    if has_weights(spec):
        points = np.array(list(by_weights(*arguments, protocol.steps)))
        checked = np.array(list(through_balancer(*arguments, CHECK)))
        np.testing.assert_allclose(points[: CHECK + 1], checked, rtol=0, atol=SAME)
    else:
        points = np.array(list(through_balancer(*arguments, protocol.steps)))
    low = np.flatnonzero(points[:, 1] < -8)  # the front is lower still
    near = low[distance(points[low]) < HIT]
    hit, steps = int(near[0]) if len(near) else -1, len(points) - 1
    # written under another name first: an interrupted write leaves no file that looks finished
    part = path.with_suffix(".part.npz")
    np.savez_compressed(part, path=points[::KEEP], last=points[-1], hit=hit, steps=steps)
    part.replace(path)
    return f"{path.name}: {points[-1].round(3)}, hit {hit}, {steps} steps"


def summary(folder: Path) -> list[dict[str, Any]]:
    """One row per finished run, in the order of the protocols."""
    rows = []
    for key, protocol in PROTOCOLS.items():
        for spec in protocol.methods:
            for start, x in enumerate(protocol.starts):
                path = path_of(folder, key, spec, start)
                if not path.exists():
                    continue
                with np.load(path) as kept:
                    last, hit, steps = kept["last"], int(kept["hit"]), int(kept["steps"])
                row = {"protocol": key, "method": spec, "start": list(x), "steps": steps}
                mean = float(losses(torch.from_numpy(last)).mean())
                on_front = bool(distance(last) < HIT)
                ends = {"end": last.round(4).tolist(), "mean_loss": round(mean, 4), "on_front": on_front}
                rows.append(row | ends | {"hit": hit if hit >= 0 else None})
    return rows


def table(rows: list[dict[str, Any]], key: str) -> str:
    """Markdown: where each start ends, with the step of reaching the front, one line per finished method."""
    protocol, lines = PROTOCOLS[key], defaultdict(list)
    for row in rows:
        if row["protocol"] == key:
            x1, x2 = row["end"]
            cell = (
                f"{round(x1, 2) + 0:.2f} ({row['hit']:,})" if row["on_front"] else f"✗ ({x1:.2f}, {x2:.2f})"
            )
            lines[row["method"]].append((cell, row["on_front"]))
    head = ["method", *(f"from ({a:g}, {b:g})" for a, b in protocol.starts), "reach"]
    text = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for spec, cells in lines.items():
        if len(cells) == len(protocol.starts):
            reached = f"{sum(on for _, on in cells)} of {len(cells)}"
            text.append("| " + " | ".join([f"`{spec}`", *(cell for cell, _ in cells), reached]) + " |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(args.jobs) as pool:
        waiting = [
            pool.submit(run, key, spec, start, args.out)
            for key, protocol in PROTOCOLS.items()
            for spec in sorted(protocol.methods, key=has_weights, reverse=True)
            for start in range(len(protocol.starts))
        ]
        for future in waiting:
            print(future.result(), flush=True)
    rows = summary(args.out)
    text = ",\n".join(map(json.dumps, rows))
    (HERE / "results.json").write_text(f"[\n{text}\n]\n", encoding="utf-8")
    # docs/toy.md includes what stands between the marks
    parts = [
        f"## {protocol.paper}\n\n<!-- {key} -->\n\n{table(rows, key)}\n\n<!-- end of {key} -->\n"
        for key, protocol in PROTOCOLS.items()
    ]
    (HERE / "results.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
