"""What a Balancer does to a model, in words."""

from __future__ import annotations

from collections.abc import Sequence

from ..gradients import task_gradients
from ..strategies import JacobianStrategy, LossStrategy
from .step.engine import Engine

#: what a JacobianStrategy takes beside the rows, in matrices [T, P]: the matrix with what is cut from it; one
#: more while it is formed; of each state the old, the new and the one proposed last
MATRIX, FORMED, STATE = 1.4, 1, 3


def explain(tasks: Sequence[str], engine: Engine, finished: Sequence[str] = ()) -> str:
    """Several lines: the strategy, passes per step, what is shared, each task's own, memory."""
    strategy, sharing = engine.weigher.strategy, engine.sharing
    every, plain = engine.weigher.options.every, engine.weigher.plain_heads
    rows = not isinstance(strategy, LossStrategy)
    kind = "losses" if not rows else "Jacobian" if isinstance(strategy, JacobianStrategy) else "Gramian"
    lines = [f"{type(strategy).__name__} on {len(tasks)} tasks ({', '.join(tasks)}), from their {kind}."]
    lines += [f"Finished: {', '.join(finished)}."] if finished else []
    if engine.one_pass:
        return "\n".join([*lines, "One backward pass per step; no memory beyond plain training."])
    each = "one backward pass per task"
    if engine.measure.batched.together:
        each += " down to the trunk, and one through it for all at once"
    if engine.measure.mode == "features":
        each = "one backward pass per task through its head, and one weighted pass"
    often = f"{each} every {every} steps, one in all between" if every > 1 else each
    lines.append(f"Per step: {often if rows else 'one backward pass, and one into each head'}.")
    leaves = sharing.everything()
    reach, names, sizes = (
        [known.tasks for known in leaves.known],
        leaves.names,
        [p.numel() for p in leaves.params],
    )
    times = [tasks.bit_count() for tasks in reach]
    if not any(times):
        return "\n".join([*lines, "What is shared is found at the first backward."])
    shared = [c for c in range(len(sizes)) if times[c] >= 2]
    lines.append(_line("Shared", shared, names, sizes))
    for i, task in enumerate(tasks):
        own = [c for c in range(len(sizes)) if reach[c] == 1 << i]
        lines.append(_line(f"Only {task}", own, names, sizes))
    unreached = [c for c in range(len(sizes)) if not times[c]]
    if unreached:
        lines.append(_line("Reached by no loss so far", unreached, names, sizes))
    if rows:
        if sharing.where and (strategy.measured_at != "shared" or sharing.shared != "auto"):
            measured, counted = zip(*sharing.where, strict=True)
            lines.append(_line("Gradients measured on", range(len(measured)), measured, counted))
        lines += _memory(engine)
    if engine.weigher.groups is not None:
        groups = engine.weigher.groups
        at = groups.columns(leaves, shared)
        lines += [_line(f"Group {groups.names[k]}", columns, names, sizes) for k, columns in at.items()]
    heads = "their own plain gradient" if plain else "their task's weight"
    return "\n".join([*lines, f"Parameters of one task get {heads}."])


def _memory(engine: Engine) -> list[str]:
    """What is kept of each task's gradient, and what that takes."""
    sharing, kept = engine.sharing, engine.measure.factored
    if engine.measure.mode == "features":
        return ["Memory above plain training: one gradient of the representation per task."]
    leaves, lines = sharing.everything(), []
    sizes = [task_gradients.size(p) for p in leaves.params]
    if kept:
        where = [c for c, name in enumerate(leaves.names) if name in kept]
        lines.append(_line("Never formed per task, kept as factors", where, leaves.names, sizes))
    elif engine.measure.mode == "gramian":
        lines.append(
            "No gradient is kept as factors: no linear layer or embedding, several batches, or, over "
            "ranks, rows were less to send."
        )
    each = [kept.get(name, size) for name, size in zip(leaves.names, sizes, strict=True)]
    times, params, strategy = (
        [known.tasks.bit_count() for known in leaves.known],
        leaves.params,
        engine.weigher.strategy,
    )
    bytes_ = sum(n * k * p.element_size() for n, k, p in zip(times, each, params, strict=True))
    what = "a gradient per task"
    if isinstance(strategy, JacobianStrategy):
        named = None if sharing.shared == "auto" else {name for name, _ in sharing.where}
        at = [c for c, name in enumerate(leaves.names) if (times[c] >= 2 if named is None else name in named)]
        wide = sum(sizes[c] * max(4, params[c].real.element_size()) for c in at)
        number = len(strategy.row_state) + sum(strategy.memory.values())
        bytes_ += int(strategy.n_tasks * wide * (MATRIX + max(FORMED, STATE * number)))
        bytes_ += STATE * wide * (len(strategy.memory) - sum(strategy.memory.values()))
        states = f", and {number} states of that size" if number else ""
        what += f", the matrix of them{states}"
    return [*lines, f"Memory above plain training: {bytes_ / 2**20:.1f} MiB at its peak, {what}."]


def _line(title: str, columns: Sequence[int], names: Sequence[str], sizes: Sequence[int]) -> str:
    listed = ", ".join(names[c] for c in columns[:4]) + (", ..." if len(columns) > 4 else "")
    total = sum(sizes[c] for c in columns)
    return f"{title}: {len(columns)} tensors, {total:,} parameters{f' ({listed})' if columns else ''}."
