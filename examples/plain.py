"""Plain PyTorch: accumulation as one big batch, fp16 with a GradScaler, clipping, a checkpoint.

python examples/plain.py
"""

import io

import torch
from torch import nn

from mtlweights import Balancer

torch.manual_seed(0)
x = torch.randn(64, 8)
price, kind = x[:, 0], x[:, 1:4].argmax(1)


class Model(nn.Module):
    """A shared trunk and two heads; the forward returns one mean loss per task."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)

    def forward(self, rows):
        states = self.trunk(x[rows])
        return {
            "price": nn.functional.mse_loss(self.price(states)[:, 0], price[rows]),
            "kind": nn.functional.cross_entropy(self.kind(states), kind[rows]),
        }


def build():
    model = Model()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    # the rows of four micro-batches are weighted once, as those of one batch
    balancer = Balancer(
        "cagrad", ["price", "kind"], model, accumulation="window", accumulation_steps=4
    ).attach(optimizer)  # the state rides in optimizer.state_dict()
    return model, optimizer, balancer, torch.amp.GradScaler("cpu", init_scale=1024.0)


def train(model, optimizer, balancer, scaler, steps):
    for _ in range(steps):
        for rows in torch.arange(64).split(16):
            with torch.autocast("cpu", torch.float16):
                losses = model(rows)
            loss = balancer(losses, counts={"price": 16, "kind": 16})
            scaler.scale(loss / 4).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()


model, optimizer, balancer, scaler = build()
before = {task: loss.item() for task, loss in model(slice(None)).items()}
train(model, optimizer, balancer, scaler, 20)

file = io.BytesIO()
torch.save([part.state_dict() for part in (model, optimizer, scaler)], file)
file.seek(0)
parts = build()
for part, state in zip((parts[0], parts[1], parts[3]), torch.load(file), strict=True):
    part.load_state_dict(state)
train(*parts, 20)

for task, loss in parts[0](slice(None)).items():
    print(f"{task}: {before[task]:.3f} -> {loss.item():.3f}")
    assert loss.item() < before[task]
assert int(parts[2].state_dict()["strategy"]["step"]) == 40
