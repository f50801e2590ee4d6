"""Models that Accelerate shards (FSDP2): whether one is to be, and its values in whole and in part.

A checkpoint holds whole tensors, so that a run goes on over any number of processes, sharded or not.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils import _pytree as pytree

from ..balancer.arguments import check_sharded
from ..gradients import fsdp

if TYPE_CHECKING:
    from ..balancer.balancer import Balancer

#: what else Accelerate's configuration may ask for, by the variable that tells
_OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM"}


def asked(balancer: Balancer, precision: str) -> bool:
    """Whether Accelerate's configuration asks for shards.

    Raises:
        ValueError: it asks for what `fit` does not do, or the strategy or precision does not go with shards.
    """
    other = next((name for key, name in _OTHERS.items() if _told(key)), None)
    if _told("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "1") != "2":
        other = "FSDP1"
    if other is not None:
        raise ValueError(f"fit runs under DDP and FSDP2 (fsdp_version: 2), Accelerate is set to {other}")
    if not _told("ACCELERATE_USE_FSDP"):
        return False
    check_sharded(balancer.strategy, balancer.options.gradients)
    if precision == "fp16":
        raise ValueError("precision='fp16' does not go with FSDP2 here: use 'bf16' or 'no'")
    return True


def prepare(accelerator: Any) -> None:
    """Set Accelerate's own plugin up: shards in full precision, autocast being ours, of weights made here."""
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    plugin = FullyShardedDataParallelPlugin(cpu_ram_efficient_loading=False)
    # set, for Accelerate takes shards on GPUs alone; on a CPU, too, its own code makes them
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin


def check_output(output: Any) -> None:
    """Raise ValueError unless FSDP2 sees the losses in what the model gave, whose backward it has to meet."""
    if not any(isinstance(leaf, Tensor) and leaf.requires_grad for leaf in pytree.tree_leaves(output)):
        raise ValueError(
            f"under FSDP2 a model gives a tuple, named tuple or dict, whose losses it can see; found "
            f"{type(output).__name__}"
        )


def whole(values: Any) -> Any:
    """The same tree with every sharded tensor whole, on the CPU; all call, and the first process gets it."""
    return pytree.tree_map(lambda x: _whole(x) if hasattr(x, "full_tensor") else x, values)


def _whole(part: Any) -> Tensor:
    found: Tensor = part.full_tensor()
    return found.cpu() if torch.distributed.get_rank() == 0 else found.new_empty(0)


def unsharded(model: nn.Module, build: Callable[[], nn.Module]) -> nn.Module:
    """The model; of one that is sharded a new one, with its weights in the first process. All call."""
    if not fsdp.is_sharded(model):
        return model
    weights, found = whole(model.state_dict()), build()
    if torch.distributed.get_rank() == 0:
        found.load_state_dict(weights)
    return found


def kept(model: nn.Module) -> dict[str, Tensor]:
    """A copy of this process's part of every weight, on the CPU."""
    return {name: fsdp.local(value.detach()).cpu().clone() for name, value in model.state_dict().items()}


@torch.no_grad()
def put_back(model: nn.Module, parts: Mapping[str, Tensor]) -> None:
    """Give the model the weights that `kept` has copied."""
    for name, value in model.state_dict().items():
        fsdp.local(value).copy_(parts[name])


def whole_of(parts: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """What `kept` has copied, whole; all call, and the first process gets it."""
    found, likes = {}, model.state_dict()
    for name, part in parts.items():
        like, sharded = likes[name], hasattr(likes[name], "device_mesh")
        found[name] = _whole(fsdp.like(like, part.to(like.device))) if sharded else part
    return found


def parts_of(values: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """This process's part of whole weights, as `kept` has them; all processes call."""
    return {name: fsdp.local(value).cpu() for name, value in shard_all(values, model.state_dict()).items()}


def shard(value: Any, like: Any) -> Any:
    """A whole tensor, sharded as ``like`` is; all processes call with the same."""
    if not (hasattr(like, "device_mesh") and isinstance(value, Tensor) and value.shape == like.shape):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)


def shard_all(values: Mapping[str, Any], likes: Mapping[str, Any]) -> dict[str, Any]:
    """Whole tensors by name, each sharded as its namesake."""
    return {name: shard(value, likes.get(name)) for name, value in values.items()}


def shard_moments(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimizer's whole state, sharded as its parameters are."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    moments = {}
    for k, found in state["state"].items():
        like = params[k] if k in range(len(params)) else None
        moments[k] = {name: shard(value, like) for name, value in found.items()}
    return {**state, "state": moments}


def _told(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("true", "1", "yes")
