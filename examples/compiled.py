"""torch.compile and activation checkpointing, each as in plain training.

python examples/compiled.py compile
python examples/compiled.py checkpoint
"""

import sys

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from mtlweights import Balancer


class Model(nn.Module):
    """A shared trunk and two heads; with ``recompute`` the trunk's activations are not kept."""

    def __init__(self, recompute):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)
        self.recompute = recompute

    def forward(self, x, price, kind):
        # use_reentrant=True hides the trunk from per-task gradients: refused, with an error that says so
        states = checkpoint(self.trunk, x, use_reentrant=False) if self.recompute else self.trunk(x)
        return {
            "price": nn.functional.mse_loss(self.price(states)[:, 0], price),
            "kind": nn.functional.cross_entropy(self.kind(states), kind),
        }


how = sys.argv[1]
torch.manual_seed(0)
x = torch.randn(64, 8)
price, kind = x[:, 0], x[:, 1:4].argmax(1)

model = Model(recompute=how == "checkpoint")
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
# made before the first backward: a graph compiled for one pass gives its buffers away, and several follow
balancer = Balancer("nash_mtl", ["price", "kind"], model).attach(optimizer)
forward = torch.compile(model) if how == "compile" else model

first = None
for _ in range(60):
    loss = balancer(forward(x, price, kind))
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    last = {task: value.item() for task, value in balancer.metrics().items() if task.startswith("loss/")}
    first = first or last
for task, value in last.items():
    print(f"{task}: {first[task]:.3f} -> {value:.3f}")
    assert value < first[task]
