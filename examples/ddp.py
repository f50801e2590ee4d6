"""DistributedDataParallel: ``no_sync`` windows, batches of unequal size, a task that one process lacks.

torchrun --nproc_per_node 2 examples/ddp.py
"""

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mtlweights import Balancer


class Model(nn.Module):
    """A shared trunk and two heads; the forward returns the mean losses of the tasks that have labels."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x, price, kind=None):
        states = self.trunk(x)
        losses = {"price": nn.functional.mse_loss(self.price(states)[:, 0], price)}
        if kind is not None:
            losses["kind"] = nn.functional.cross_entropy(self.kind(states), kind)
        return losses


def main():
    rank = dist.get_rank()
    torch.manual_seed(0)  # the same start on every process
    model = DistributedDataParallel(Model())
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # given the wrapper: it tells the end of a window, and which processes train together
    balancer = Balancer("pcgrad", ["price", "kind"], model, accumulation="window").attach(optimizer)

    x = torch.randn(96, 8)
    price, kind = x[:, 0], x[:, 1:4].argmax(1)
    mine = torch.arange(64) if rank == 0 else torch.arange(64, 96)  # two parts of unequal size

    first = None
    for _ in range(40):
        for k, rows in enumerate(mine.chunk(2)):
            labels = None if rank == 1 and k == 0 else kind[rows]  # a micro-batch without this task
            with nullcontext() if k == 1 else model.no_sync():
                losses = model(x[rows], price[rows], labels)
                loss = balancer(losses, counts=dict.fromkeys(losses, len(rows)))
                (loss / 2).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        last = {task: value.item() for task, value in balancer.metrics().items() if task.startswith("loss/")}
        first = first or last

    weights = torch.cat([p.detach().flatten() for p in model.parameters()])
    others = [torch.empty_like(weights) for _ in range(dist.get_world_size())]
    dist.all_gather(others, weights)
    assert all(torch.equal(other, weights) for other in others)  # bit for bit
    if rank == 0:
        for task, value in last.items():
            print(f"{task}: {first[task]:.3f} -> {value:.3f}")
            assert value < first[task]


if __name__ == "__main__":
    dist.init_process_group("gloo")
    main()
    dist.barrier()
    dist.destroy_process_group()
