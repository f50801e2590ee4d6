"""FSDP2: sharded parameters in bf16, accumulation, clipping, a checkpoint with torch.distributed.checkpoint.

torchrun --nproc_per_node 2 examples/fsdp2.py
"""

import tempfile

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from mtlweights import Balancer


class Model(nn.Module):
    """A shared trunk and two heads; the forward returns one mean loss per task."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x, price, kind):
        states = self.trunk(x)
        return {
            "price": nn.functional.mse_loss(self.price(states)[:, 0].float(), price),
            "kind": nn.functional.cross_entropy(self.kind(states).float(), kind),
        }


def build(mesh):
    torch.manual_seed(0)
    model = Model()
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16, reduce_dtype=torch.float32, cast_forward_inputs=False
    )
    for part in (model.trunk, model.price, model.kind):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # strategies that need the inner products of the task gradients work, those that need them whole do not
    balancer = Balancer("cagrad", ["price", "kind"], model, accumulation="window", accumulation_steps=2)
    return model, optimizer, balancer


def train(data, model, optimizer, balancer, steps):
    for _ in range(steps):
        for x, price, kind in zip(*(part.chunk(2) for part in data), strict=True):
            losses = model(x.bfloat16(), price, kind)
            (balancer(losses, counts={"price": len(x), "kind": len(x)}) / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {task: value.item() for task, value in balancer.metrics().items() if task.startswith("loss/")}


def main():
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    data = [part.chunk(dist.get_world_size())[dist.get_rank()] for part in (x, x[:, 0], x[:, 1:4].argmax(1))]

    model, optimizer, balancer = build(mesh)
    first = train(data, model, optimizer, balancer, 1)

    folder = [tempfile.mkdtemp()]
    dist.broadcast_object_list(folder)
    states = get_state_dict(model, optimizer)  # leaves out what else the optimizer's state_dict holds:
    dcp.save({"model": states[0], "optimizer": states[1], "balancer": balancer}, checkpoint_id=folder[0])

    model, optimizer, balancer = build(mesh)
    states = get_state_dict(model, optimizer)
    dcp.load({"model": states[0], "optimizer": states[1], "balancer": balancer}, checkpoint_id=folder[0])
    set_state_dict(model, optimizer, model_state_dict=states[0], optim_state_dict=states[1])
    last = train(data, model, optimizer, balancer, 60)

    if dist.get_rank() == 0:
        for task, value in last.items():
            print(f"{task}: {first[task]:.3f} -> {value:.3f}")
            assert value < first[task]
    assert int(balancer.state_dict()["strategy"]["step"]) == 61


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.barrier()
    dist.destroy_process_group()
