"""The most memory that a step holds, and how exact the sparing mode is."""

from __future__ import annotations

import gc
from itertools import accumulate

import torch
from arms import LEAN, Step, our_modes, peer_steps, references, that_run, torchjd_steps
from models import Problem

from mtlweights import Balancer

ARMS = ("pcgrad, rows", "pcgrad, gramian", "pcgrad", "pcgrad, features", "torchjd pcgrad",
        "torchjd pcgrad, leanest", "libmtl pcgrad")  # fmt: skip


def column(problem: Problem, device: torch.device) -> dict[str, str]:
    """Label -> peak above plain in units of T P floats; then how exact mode gramian is."""
    arms = references(problem) | our_modes(problem) | peer_steps(problem, ["pcgrad"])
    lean = torchjd_steps(problem, "pcgrad").get(LEAN)
    arms |= {"torchjd pcgrad, leanest": lean} if lean else {}
    arms, _ = that_run(arms)
    plain, unit = peak(arms["plain"], device), 4 * len(problem.tasks) * problem.shared_elements
    out = {"T P floats, MiB": f"{unit / 2**20:.0f}", "plain's own peak, MiB": f"{plain / 2**20:.0f}"}
    for arm in ARMS:
        label = "pcgrad, auto" if arm == "pcgrad" else arm
        out[label] = f"{(peak(arms[arm], device) - plain) / unit:.2f}" if arm in arms else "-"
    gram, gradient = exactness(problem)
    return out | {
        "Gramian, mode gramian against rows": f"{gram:.0e}",
        ".grad, mode gramian against rows": f"{gradient:.0e}",
    }


def peak(step: Step, device: torch.device) -> int:
    """Most bytes of tensors that a step held at a time, above what it found."""
    step()
    if device.type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    gc.collect()
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as seen:
        step()
    assert seen.profiler is not None
    events = [e for e in seen.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate((e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())), initial=0))


def exactness(problem: Problem) -> tuple[float, float]:
    """Mode gramian against rows: largest |G - G_rows|_ij / sqrt(G_ii G_jj); the same of .grad, by length."""
    seen = []
    for mode in ("rows", "gramian"):
        balancer = Balancer("cagrad", problem.tasks, problem.model, gradients=mode)
        torch.manual_seed(1)  # of dropout
        balancer.backward(problem.losses())
        figures = {key: float(value) for key, value in balancer.metrics().items()}
        seen.append((figures, [p.grad.double().flatten() for p in problem.params if p.grad is not None]))
        problem.zero_grad()
    (a, rows), (b, gramian) = seen
    norms = [abs(b[k] / a[k]) ** 2 - 1 for k in a if k.startswith("norm/")]
    cosines = [a[k] - b[k] for k in a if k.startswith("cos/")]
    reference, other = torch.cat(rows), torch.cat(gramian)
    return max(map(abs, norms + cosines)), float((reference - other).norm() / reference.norm())
