"""Rows of a model sharded by FSDP2, where each rank holds its part of every gradient; and what is refused.

The graph is on unsharded copies of the parameters, so gradients cannot be asked for; a backward pass per
task leaves them, averaged over the ranks and sharded, in ``.grad``. Parts of different ranks have no element
in common, so Gramians add up over the ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .ranks import Ranks
from .task_gradients import Row

OLD = ("FullyShardedDataParallel", "DeepSpeedEngine")
#: what a parameter carries that is not an ordinary one, and who put it there
MARKS = {
    "_is_flat_param": "FullyShardedDataParallel (FSDP1)",
    "ds_id": "DeepSpeed ZeRO",
    "_hp_mapping": "DeepSpeed ZeRO",
    "device_mesh": "tensor parallelism (DTensor parameters)",
}


def is_sharded(model: nn.Module | None) -> bool:
    """Whether FSDP2's ``fully_shard`` was applied to the model or a part of it."""
    return model is not None and any("FSDPModule" in _kinds(module) for module in model.modules())


def check_model(model: nn.Module) -> None:
    """Raise ValueError for a wrapper under which repeated backward passes do not work."""
    old = next((k for module in model.modules() for k in _kinds(module) if k in OLD), None)
    if old is not None:
        _refuse(old)


def check_leaf(param: Tensor) -> None:
    """Raise ValueError for a leaf of the graph that is not a whole parameter of the model."""
    for mark, owner in MARKS.items():
        if hasattr(param, mark):
            _refuse(owner)


def _refuse(owner: str) -> None:
    raise ValueError(
        f"Per-task gradients are not to be had under {owner}: shard with FSDP2 (fully_shard), use DDP, or "
        "a loss-based strategy."
    )


def _kinds(module: nn.Module) -> list[str]:
    return [base.__name__ for base in type(module).__mro__]


def add_grams(gram: Tensor, param: Any) -> Tensor:
    """The sum of the Gramians of all parts, over the mesh's last dimension; replicas (HSDP) have the same."""
    mesh = param.device_mesh
    dist.all_reduce(gram, group=mesh.get_group(mesh.ndim - 1))
    return gram


def check_mesh(param: Any, ranks: Ranks) -> None:
    """Raise ValueError if the model is sharded over other processes than those that train it."""
    size = param.device_mesh.size()
    if size != ranks.number:
        raise ValueError(
            f"The model is sharded over {size} processes, and the balancer averages over {ranks.number}: "
            "pass the mesh's group, Balancer(process_group=mesh.get_group())."
        )


def reshard(model: nn.Module) -> None:
    """Put the sharded parameters back in their places, where the optimizer knows them."""
    for module in model.modules():
        if hasattr(module, "set_is_last_backward"):
            module.reshard()  # type: ignore[operator]


def local(tensor: Any) -> Tensor:
    """This rank's part."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


def like(param: Any, part: Tensor) -> Tensor:
    """This rank's part of a gradient, as the gradient of ``param``."""
    if not hasattr(param, "device_mesh"):
        return part
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        part, param.device_mesh, param.placements, shape=param.shape, stride=param.stride()
    )


def check_present(present: Sequence[int], n_tasks: int, like: Tensor, ranks: Ranks) -> None:
    """Every rank must take part in every pass.

    Raises:
        ValueError: a task is on some ranks only.
    """
    here = torch.zeros(n_tasks, device=like.device)
    here[list(present)] = 1
    dist.all_reduce(here, group=ranks.group)
    if bool(((here > 0) & (here < ranks.number)).any()):
        raise ValueError(
            "Under FSDP2 every rank needs a loss for the same tasks in a step: batch by task, or give the "
            "loss of a rank without items as 0 times the output, with a count of 0 as a tensor."
        )


def rows(
    model: nn.Module,
    losses: Sequence[Tensor],
    params: Sequence[Any],
    seeds: Sequence[Tensor],
    retain_graph: bool,
) -> list[Row]:
    """This rank's part of the gradient of ``seed * loss`` in every parameter, one backward per loss.

    Every pass is reduced over the ranks, also in a micro-batch for which the loop has switched that off
    (``set_requires_gradient_sync``): what is weighted are gradients of the whole batch.
    """
    before = [(param.grad, getattr(param, "_post_accumulate_grad_hooks", None)) for param in params]
    for param in params:  # hooks wait for the step's gradient, not for a task's
        param.grad = param._post_accumulate_grad_hooks = None
    roots = [module for module in model.modules() if hasattr(module, "set_is_last_backward")]
    out: list[Row] = []
    for root in roots:
        root.set_requires_gradient_sync(True, recurse=False)  # type: ignore[operator]
    try:
        for i, (loss, seed) in enumerate(zip(losses, seeds, strict=True)):
            last = i + 1 == len(losses)
            for root in roots:  # parameters stay gathered until the last pass
                root.set_is_last_backward(last)  # type: ignore[operator]
                root.set_reshard_after_backward(last, recurse=False)  # type: ignore[operator]
            loss.backward(seed.to(loss), retain_graph=retain_graph or not last)
            out.append([None if p.grad is None else local(p.grad) for p in params])
            for param in params:
                param.grad = None
    finally:
        for param, (gradient, hooks) in zip(params, before, strict=True):
            param.grad, param._post_accumulate_grad_hooks = gradient, hooks
    return out
