"""Accelerate: accumulation, bf16, clipping, a checkpoint; one process or several.

python examples/accelerate_loop.py
torchrun --nproc_per_node 2 examples/accelerate_loop.py
"""

import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from torch import nn

from mtlweights import Balancer


class Model(nn.Module):
    """A shared trunk and two heads; the forward returns one mean loss per task."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, x, price, kind):
        states = self.trunk(x)
        return {
            "price": nn.functional.mse_loss(self.price(states)[:, 0].float(), price),
            "kind": nn.functional.cross_entropy(self.kind(states), kind),
        }


torch.manual_seed(0)
x = torch.randn(64, 8)
data = torch.utils.data.TensorDataset(x, x[:, 0], x[:, 1:4].argmax(1))

accelerator = Accelerator(cpu=True, mixed_precision="bf16", gradient_accumulation_steps=2)
model = Model()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
loader = torch.utils.data.DataLoader(data, batch_size=8)
model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
# the end of a window is read from the Accelerator
balancer = Balancer("pcgrad", ["price", "kind"], model, accumulation="window").attach(optimizer)


def epoch():
    for rows in loader:
        with accelerator.accumulate(model):
            loss = balancer(model(*rows), counts={"price": len(rows[0]), "kind": len(rows[0])})
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                accelerator.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
    return balancer.metrics()


first = epoch()
folder = broadcast_object_list([tempfile.mkdtemp()])[0]
accelerator.save_state(folder)  # the balancer's state is in the optimizer's
accelerator.wait_for_everyone()
accelerator.load_state(folder)
for _ in range(10):
    last = epoch()
for task in ("price", "kind"):
    accelerator.print(f"{task}: {first[f'loss/{task}'].item():.3f} -> {last[f'loss/{task}'].item():.3f}")
    assert last[f"loss/{task}"] < first[f"loss/{task}"]
accelerator.end_training()
