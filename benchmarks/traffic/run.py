"""Counts what a step sends between processes, family by family, beside the formulas of the documentation.

``python benchmarks/traffic/run.py > benchmarks/traffic/results.md`` starts 2 and 4 Gloo processes
(``--processes 2 4 8``) on this machine. Every collective that torch issues in the third step is seen, those
of DDP and FSDP2 included, with the bytes of its whole tensor. It fails where a count is off by more than two
parts in a hundred. Two processes also time a Gramian step from exchanged factors against one by rows.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from mtlweights import Balancer

WIDTH, LAYERS, TASKS, STEPS, FLOAT = 256, 8, 4, 3, 4
FEW, MANY = 8, 512  # examples of a process
KINDS = {"allreduce_": 0, "_allgather_base_": 0, "_reduce_scatter_base_": 1}  # name -> place of the whole
KINDS |= {"alltoall_base_": 1, "allgather_": 0}
TURNS = 30  # of the two ways that are timed


class Model(nn.Module):
    """A trunk of equal layers, and a head per task."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *[nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU()) for _ in range(LAYERS)]
        )
        self.heads = nn.ModuleList([nn.Linear(WIDTH, 1) for _ in range(TASKS)])

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Task -> loss []."""
        z = self.trunk(x)
        return {str(i): head(z).square().mean() for i, head in enumerate(self.heads)}


LAYER, HEAD = WIDTH * WIDTH + WIDTH, WIDTH + 1
P = LAYERS * LAYER + TASKS * HEAD
Counts = dict[str, float]  # kind of collective -> bytes


@dataclass(frozen=True)
class Case:
    """A family of strategies, by one of its number, and how many elements its collectives should hold."""

    family: str
    strategy: str
    options: dict[str, Any]
    reduced: int  #: by DDP's all-reduce
    words: str  #: the same for readers
    passes: int = 0  #: backward passes under shards, each scattered; 0 where they are refused
    layers: int = 0  #: whose factors DDP's processes exchange
    examples: int = FEW

    def formula(self, how: str, processes: int) -> Counts:
        """Bytes by kind; two replicas of shards (HSDP) all-reduce what was scattered."""
        if how == "DDP":
            factors = self.layers * self.examples * WIDTH * (TASKS + processes)
            return {"allreduce_": FLOAT * self.reduced, "alltoall_base_": FLOAT * factors}
        scattered = FLOAT * (self.passes * LAYERS * LAYER + TASKS * HEAD)
        found = {"_allgather_base_": 2.0 * FLOAT * P, "_reduce_scatter_base_": scattered}
        return found if how == "FSDP2" else {**found, "allreduce_": scattered / (processes // 2)}

    def said(self, how: str) -> str:
        """The formula."""
        scattered = "P" if self.passes == 1 else "T P"
        shards = f"all-gather 2 P, reduce-scatter {scattered}"
        return {"DDP": f"all-reduce {self.words}", "FSDP2": shards}.get(
            how, f"{shards}, all-reduce {scattered} / s"
        )


BIAS = (TASKS - 1) * WIDTH  # the rows of a layer's bias, beyond the one that is summed in any way
FACTORS = "all-to-all of factors"
ROWS = {"gradients": "rows"}
CASES = [
    Case("losses", "uw", {}, P, "P", 1),
    Case("Gramian", "mgda", {}, P + LAYERS * BIAS, f"P, {FACTORS}", TASKS, LAYERS),
    Case(f"Gramian, {MANY} examples a process", "mgda", {}, TASKS * P, "T P", examples=MANY),
    Case('Gramian, `gradients="rows"`', "mgda", ROWS, TASKS * P, "T P"),
    Case("Gramian, weights held (`every=`)", "mgda", {"every": 100}, P, "P", TASKS),
    Case("Gramian at the last shared layer", "gradnorm", {}, P + BIAS + WIDTH, f"P, {FACTORS}", TASKS, 1),
    Case("Gramian at the representation", "mgda", {"gradients": "features"}, P, "P"),
    Case("whole gradients", "graddrop", {}, TASKS * P, "T P"),
]


class Counted(TorchDispatchMode):
    """Notes the bytes of every collective's whole tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes: Counts = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Runs ``func``."""
        name = func._opname
        if func.namespace == "c10d" and name in KINDS:
            self.bytes[name] = self.bytes.get(name, 0) + _size(args[KINDS[name]])
        return func(*args, **(kwargs or {}))


def _size(tensors: Any) -> int:
    if isinstance(tensors, Tensor):
        return tensors.numel() * tensors.element_size()
    return sum(map(_size, tensors)) if isinstance(tensors, (list, tuple)) else 0


def wrapped(how: str, model: Model, processes: int) -> nn.Module:
    """The model under DDP, FSDP2 or, two replicas of shards, HSDP."""
    if how == "DDP":
        return DistributedDataParallel(model)
    shape = (processes,) if how == "FSDP2" else (2, processes // 2)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("replicas", "shards")[-len(shape) :])
    for part in model.trunk:
        fully_shard(part, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def stepper(how: str, case: Case, processes: int) -> Callable[[], Counts]:
    """A fresh model's step, which gives its bytes by kind."""
    torch.manual_seed(0)
    model = Model()
    wrapper = wrapped(how, model, processes)
    options = dict(case.options)
    if options.get("gradients") == "features":
        options["features"] = model.trunk
    balancer = Balancer(case.strategy, [str(i) for i in range(TASKS)], wrapper, **options)
    optimizer = torch.optim.SGD(wrapper.parameters(), lr=0.01)

    def step() -> Counts:
        optimizer.zero_grad()
        with Counted() as counted:
            balancer(wrapper(torch.randn(case.examples, WIDTH))).backward()
        optimizer.step()
        return counted.bytes

    return step


def count(how: str, case: Case, processes: int) -> Counts:
    """Bytes by kind in the third step of a fresh model."""
    step = stepper(how, case, processes)
    return [step() for _ in range(STEPS)][-1]


def ratios(processes: int) -> list[float]:
    """Time of a step over that of one by rows, in turns; of this process's CPU, and on the clock."""
    ways = [stepper("DDP", Case("", "mgda", options, 0, ""), processes) for options in ({}, ROWS)]
    taken: list[list[tuple[float, float]]] = []
    for turn in range(TURNS + STEPS):
        taken.append([])
        for step in ways if turn % 2 else reversed(ways):
            start = time.process_time(), time.perf_counter()
            step()
            taken[-1].append((time.process_time() - start[0], time.perf_counter() - start[1]))
        if not turn % 2:
            taken[-1].reverse()
    return [statistics.median(a[k] / b[k] for a, b in taken[STEPS:]) for k in range(2)]


def rank_main(rank: int, processes: int, port: int, folder: str) -> None:
    """All cases in one process of the group."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    dist.init_process_group("gloo", rank=rank, world_size=processes)
    ways = ["DDP", "FSDP2", *(["HSDP"] if processes > 2 else [])]
    found = {
        (how, k): count(how, case, processes)
        for k, case in enumerate(CASES)
        for how in ways
        if how == "DDP" or case.passes
    }
    took = ratios(processes) if processes == 2 else []
    if rank == 0:
        torch.save((found, took), f"{folder}/found.pt")
    dist.barrier()
    dist.destroy_process_group()


def rows(processes: int, folder: str) -> tuple[list[str], list[float]]:
    """Lines of the table, and ratios of times; raises AssertionError where a count is off by a fiftieth."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    mp.spawn(rank_main, (processes, port, folder), nprocs=processes)
    lines: list[str] = []
    found, took = torch.load(f"{folder}/found.pt")
    for (how, k), counts in found.items():
        case, formula = CASES[k], CASES[k].formula(how, processes)
        for kind in {*counts, *formula}:
            here, there = counts.get(kind, 0), formula.get(kind, 0.0)
            # shards of heads are padded to one element for each process; T x T numbers count as none
            assert abs(here - there) < 0.02 * there + 0.002 * FLOAT * P, (how, case.family, kind, here, there)
        measured, paper = sum(counts.values()) / FLOAT / P, sum(formula.values()) / FLOAT / P
        lines.append(
            f"| {how} | {processes} | {case.family} | {case.said(how)} | {paper:.3f} | {measured:.3f} |"
        )
    return lines, took


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the page."""
    import tempfile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", nargs="+", type=int, default=[2, 4])
    args = parser.parse_args(arguments)
    head = ["wrapper", "processes", "family", "formula", "of the formula", "counted"]
    print("# What a step sends\n")
    print(f"Made by `benchmarks/traffic/run.py`, torch {torch.__version__}, Gloo on a CPU: the bytes in the")
    print("tensors of a step's collectives in units of the model's own, all in float32. The model has")
    print(f"P = {P:,} parameters, {LAYERS} layers of {WIDTH} nearly all of it, and T = {TASKS} tasks, with")
    print(f"{FEW} examples a process; s processes hold the shards of one model. Of a layer of width d, with")
    print("n examples on each of k processes, the factors a process sends are n d (T + k) numbers.\n")
    print(f"| {' | '.join(head)} |\n|{' --- |' * len(head)}")
    with tempfile.TemporaryDirectory() as folder:
        took: list[float] = []
        for processes in args.processes:
            lines, timed = rows(processes, folder)
            took = took or timed
            print("\n".join(lines), flush=True)
    if took:
        print(f"\nA Gramian step of two processes takes {took[0]:.2f} of the CPU time of one by rows, and")
        print(f"{took[1]:.2f} of its time on the clock (medians of {TURNS} turns in one run, one thread")
        print("each, where a byte sent is a copy in memory).")


if __name__ == "__main__":
    main()
