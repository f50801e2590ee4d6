"""Times ``weights(gram)`` of every Gramian strategy, and how well its answer meets the optimality conditions.

``OMP_NUM_THREADS=1 python benchmarks/micro/solvers.py > benchmarks/micro/solvers.md``; with TorchJD
installed (it is no dependency), its columns stand beside ours, from one interleaved run on the same
Gramians. ``--many > benchmarks/micro/solvers-many.md``: 128 to 512 tasks, ours alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import time
import warnings
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from mtlweights import strategies
from mtlweights.strategies import GramStrategy

Residual = Callable[[np.ndarray, np.ndarray], float]
C, ALPHA, TAU = 0.5, 2.0, 0.02

#: TorchJD's class and arguments; {} where it takes the Gramian, {"n_tasks"} filled in
TORCHJD: dict[str, tuple[str, dict[str, object]]] = {
    "pcgrad": ("PCGradWeighting", {}),
    "gradvac": ("GradVacWeighting", {"beta": 0.01}),
    "mgda": ("MGDAWeighting", {}),
    "cagrad": ("CAGradWeighting", {"c": C}),
    "imtl_g": ("IMTLGWeighting", {}),
    "nash_mtl": ("NashMTL", {"n_tasks": None, "max_norm": 0.0}),
    "fairgrad": ("FairGradWeighting", {"alpha": ALPHA}),
    "aligned_mtl": ("AlignedMTLWeighting", {}),
    "upgrad": ("UPGradWeighting", {}),
    "dualproj": ("DualProjWeighting", {}),
    "config": ("ConFIG", {}),
    "pcd": ("PCDWeighting", {"tau": TAU}),
    "krum": ("KrumWeighting", {"n_byzantine": 0}),
    "random_grad": ("RandomWeighting", {}),
}


def _norms(gram: np.ndarray) -> np.ndarray:
    return np.sqrt(np.diagonal(gram))


def _gap_mgda(gram: np.ndarray, w: np.ndarray) -> float:
    return float((w @ gram @ w - (gram @ w).min()) / gram.diagonal().max())


def _gap_cagrad(gram: np.ndarray, w: np.ndarray) -> float:
    """Primal against dual value, over |g_0| times the longest gradient."""
    m = len(w)
    mean, added = gram.sum(axis=1) / m, np.maximum(w - 1 / m, 0)
    length = np.sqrt(mean.sum() / m)
    share = added / added.sum() if added.sum() > 0 else np.full(m, 1 / m)
    dual = share @ mean + C * length * np.sqrt(share @ gram @ share)
    return float((dual - (gram @ w).min()) / (length * _norms(gram).max()))


def _fairness(alpha: float) -> Residual:
    return lambda gram, w: float(np.abs(np.maximum(w, 0) ** (1 / alpha) * (gram @ w) - 1).max())


def _spread_of_cosines(gram: np.ndarray, w: np.ndarray) -> float:
    cosines = gram @ w / _norms(gram) / np.sqrt(w @ gram @ w)
    return float(cosines.max() - cosines.min())


def _aligned(gram: np.ndarray, w: np.ndarray) -> float:
    """The aligned gradients are orthogonal and of one length: so |d|^2 is known up to the preference's."""
    least = np.linalg.eigvalsh(gram)[0]
    square, summed = w @ gram @ w, np.linalg.eigh(gram)
    back = summed[1] @ (np.sqrt(summed[0] / least) * (w @ summed[1]))  # the preference that w came from
    return float(np.abs(back / back.mean() - 1).max() + abs(square / (least * (back @ back)) - 1))


def _worst_conflict(gram: np.ndarray, w: np.ndarray) -> float:
    return float(max(0.0, -(gram @ w / _norms(gram)).min() / np.sqrt(w @ gram @ w)))


def _cone(gram: np.ndarray, w: np.ndarray) -> float:
    """Sign and complementarity of the projection of the mean, in units of its length."""
    u, z = (w - 1 / len(w)) * _norms(gram), gram @ w / _norms(gram)
    size = np.sqrt(gram.mean())
    return float(max(0.0, -u.min() / size, -z.min() / size, np.abs(u * z).max() / size**2))


def _promise(gram: np.ndarray, w: np.ndarray) -> float:
    """PCD's conditions for unit gradients: promise kept, and exactly where it changes the direction."""
    n = _norms(gram)
    multipliers = w * n / (w[0] * n[0])
    slack = (gram / n / n[:, None] @ multipliers - TAU)[1:]
    return float(max(0.0, -slack.min(), np.abs(slack * multipliers[1:]).max()))


RESIDUALS: dict[str, Residual] = {
    "mgda": _gap_mgda, "cagrad": _gap_cagrad, "nash_mtl": _fairness(1.0), "fairgrad": _fairness(ALPHA),
    "imtl_g": _spread_of_cosines, "config": _spread_of_cosines, "aligned_mtl": _aligned,
    "upgrad": _worst_conflict, "dualproj": _cone, "pcd": _promise,
}  # fmt: skip


def jacobians(n_tasks: int, n: int) -> list[np.ndarray]:
    """Gradients [T, 2 T + 10] with conflicts, of lengths within a factor of ten."""
    rng = np.random.default_rng(n_tasks)
    shape = (n_tasks, 2 * n_tasks + 10)
    return [rng.normal(size=shape) * 10.0 ** rng.uniform(-0.5, 0.5, size=(n_tasks, 1)) for _ in range(n)]


def ours(name: str, gram: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of a fresh strategy of ours."""
    fixed = {"cagrad": {"c": C}, "fairgrad": {"alpha": ALPHA}, "pcd": {"tau": TAU}}
    strategy = strategies.get(name)(len(gram), **fixed.get(name, {}))
    assert isinstance(strategy, GramStrategy)
    losses = np.linspace(0.5, 2, len(gram))
    k = strategy.batches + ("validate" in strategy.hooks())  # of the same gradients
    gram = np.ascontiguousarray(np.tile(gram, (k, k)))

    def call() -> np.ndarray:
        weights = strategy.weights(gram, losses, np.arange(len(losses)))
        return (weights[0] if isinstance(weights, tuple) else weights)[-len(losses) :]

    return call


def theirs(name: str, jacobian: np.ndarray) -> Callable[[], np.ndarray] | None:
    """The same of TorchJD's, in float64; those without a Gramian form get the Jacobian."""
    if name not in TORCHJD or (name == "krum" and len(jacobian) < 3):  # it refuses two rows
        return None
    aggregation = importlib.import_module("torchjd.aggregation")
    cls, arguments = TORCHJD[name]
    given = {key: len(jacobian) if value is None else value for key, value in arguments.items()}
    method, matrix = getattr(aggregation, cls)(**given), torch.from_numpy(jacobian)
    if cls.endswith("Weighting"):
        gram = matrix @ matrix.T
        return lambda: method(gram)
    return lambda: method(matrix)


def weights_of(out: np.ndarray | torch.Tensor, jacobian: np.ndarray) -> np.ndarray:
    """Weights [T], read off a direction where that is what came out."""
    out = np.asarray(out.detach() if isinstance(out, torch.Tensor) else out, dtype=np.float64)
    return out if len(out) == len(jacobian) else np.linalg.lstsq(jacobian.T, out, rcond=None)[0]


def measure(name: str, n_tasks: int, n: int, repeats: int, torchjd: bool) -> list[str]:
    """One row of the table: median CPU time in ms and largest residual, ours and theirs."""
    times: list[list[float]] = [[], []]
    residuals: list[list[float]] = [[], []]
    for jacobian in jacobians(n_tasks, n):
        calls = [ours(name, jacobian @ jacobian.T), theirs(name, jacobian) if torchjd else None]
        for k, call in enumerate(calls):
            if call is not None and name in RESIDUALS:
                residuals[k].append(RESIDUALS[name](jacobian @ jacobian.T, weights_of(call(), jacobian)))
        for k, call in enumerate(calls):  # a few at a time: neither finds its caches full of the other's
            for _ in range(repeats if call is not None else 0):
                start = time.process_time_ns()
                call()
                times[k].append((time.process_time_ns() - start) / 1e6)
    medians = [float(np.median(t)) if t else None for t in times]
    ratio = "-" if medians[1] is None else f"{medians[1] / medians[0]:.0f}"
    cells = ["-" if t is None else f"{t:.3f}" for t in medians]
    errors = [f"{max(r):.0e}" if r else "-" for r in residuals]
    return [name, str(n_tasks), *cells, ratio, *errors]


def machine() -> str:
    """Processor, cores, versions."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    model = next(
        (line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor()
    )
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in ("numpy", "scipy", "torch"))
    return f"{model}, {os.cpu_count()} cores, one thread; Python {platform.python_version()}, {versions}"


def of_many(n_tasks: int) -> dict[str, np.ndarray]:
    """Gramians of many tasks: with conflicts, nearly orthogonal, dependent, alike."""
    rng = np.random.default_rng(n_tasks)
    length = 10.0 ** rng.uniform(-0.5, 0.5, size=(n_tasks, 1))
    made = {
        "P = 2 T": rng.normal(size=(n_tasks, 2 * n_tasks)),
        "P = 30 T": rng.normal(size=(n_tasks, 30 * n_tasks)),
        "P = T / 4": rng.normal(size=(n_tasks, n_tasks // 4)),
        "alike": rng.normal(size=(1, 4 * n_tasks)) + rng.normal(size=(n_tasks, 4 * n_tasks)),
    }
    return {kind: (length * rows) @ (length * rows).T for kind, rows in made.items()}


def many(name: str, n_tasks: int, grams: dict[str, np.ndarray], repeats: int) -> list[str]:
    """One row: least CPU time in ms of ``repeats`` calls, for every Gramian."""
    cells = []
    for gram in grams.values():
        try:
            call = ours(name, gram=gram)
        except ValueError:
            cells.append("refused")
            continue
        times = []
        for _ in range(repeats):
            start = time.process_time_ns()
            call()
            times.append((time.process_time_ns() - start) / 1e6)
        cells.append(f"{min(times):.1f}")
    return [name, str(n_tasks), *cells]


def many_tasks(names: Sequence[str], repeats: int) -> None:
    """Print the table of many tasks."""
    print("# Time of the Gramian solvers with many tasks\n")
    print(f"Made by `OMP_NUM_THREADS=1 python benchmarks/micro/solvers.py --many` on\n{machine()}.\n")
    square = np.ones((512, 512))
    times = []
    for _ in range(repeats):
        start = time.process_time_ns()
        square @ square
        times.append((time.process_time_ns() - start) / 1e6)
    print(
        f"CPU time of one call in ms, the least of {repeats}; a product of two 512 x 512 matrices took "
        f"{min(times):.1f}.\nP: dimensions of random gradients; alike: about one common gradient.\n"
    )
    kinds = list(of_many(4))
    print(f"| strategy | T | {' | '.join(kinds)} |\n|---|---|{'---|' * len(kinds)}")
    for n_tasks in (128, 256, 512):
        grams = of_many(n_tasks)
        for name in names:
            cls = strategies.get(name)
            if issubclass(cls, GramStrategy) and cls.measured_at == "shared":
                print("| " + " | ".join(many(name, n_tasks, grams, repeats)) + " |", flush=True)


def main() -> None:
    """Print the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gramians", type=int, default=3, help="random Gramians per row")
    parser.add_argument("--repeats", type=int, default=5, help="calls per Gramian")
    parser.add_argument("--many", action="store_true", help="128, 256 and 512 tasks, ours alone")
    parser.add_argument("--only", nargs="*", help="strategies (default: all)")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if args.many:
        many_tasks(args.only or strategies.names(), args.repeats)
        return
    torchjd = importlib.util.find_spec("torchjd") is not None
    version = f", TorchJD {metadata.version('torchjd')}" if torchjd else ""
    print("# Time and accuracy of the Gramian solvers\n")
    print(f"Made by `OMP_NUM_THREADS=1 python benchmarks/micro/solvers.py` on\n{machine()}{version}.\n")
    print(
        "Median CPU time of one call in ms; largest residual of the optimality conditions (relative, 0 is\n"
        "exact; defined in the script; - where the rule is a formula). Same Gramians for both, in float64.\n"
    )
    print("| strategy | T | ours, ms | TorchJD, ms | times | ours, residual | TorchJD, residual |")
    print("|---|---|---|---|---|---|---|")
    for name in args.only or strategies.names():
        cls = strategies.get(name)
        if issubclass(cls, GramStrategy) and cls.measured_at == "shared":
            for n_tasks in (2, 8, 40):
                print(
                    "| " + " | ".join(measure(name, n_tasks, args.gramians, args.repeats, torchjd)) + " |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
