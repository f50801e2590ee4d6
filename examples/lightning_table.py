"""A LightningModule with automatic optimisation on Abalone: sex (3 classes) and rings (a number).

python examples/lightning_table.py --strategy pcgrad
"""

import argparse
import json
import time

import lightning.pytorch as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mtlweights import Balancer  # mtlweights
from mtlweights.problems import load

TASKS = ["sex", "rings"]

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=30)
parser.add_argument("--batch_size", type=int, default=64)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--strategy", default="none")  # mtlweights


class Abalone(pl.LightningModule):
    """Two hidden layers and a head per task; the targets of rings are standardised."""

    def __init__(self, lr, mean, std):
        super().__init__()
        self.lr, self.mean, self.std = lr, mean, std
        self.trunk = nn.Sequential(nn.Linear(7, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.sex, self.rings = nn.Linear(64, 3), nn.Linear(64, 1)
        self.balancer = args.strategy != "none" and Balancer(args.strategy, TASKS, self)  # mtlweights

    def forward(self, x):
        states = self.trunk(x)
        return self.sex(states), self.rings(states)[:, 0]

    def training_step(self, batch, index):
        x, sex, rings = batch
        logits, values = self(x)
        losses = {
            "sex": nn.functional.cross_entropy(logits, sex),
            "rings": nn.functional.mse_loss(values, (rings - self.mean) / self.std),
        }
        loss = sum(losses.values())
        if self.balancer:  # mtlweights
            loss = self.balancer(losses)  # mtlweights
        return loss

    def test_step(self, batch, index):
        x, sex, rings = batch
        logits, values = self(x)
        squares = (values * self.std + self.mean - rings) ** 2
        self.log("sex accuracy", (logits.argmax(-1) == sex).float().mean(), on_epoch=True)
        self.log("rings MSE", squares.mean(), on_epoch=True)

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), self.lr)
        steps = self.trainer.estimated_stepping_batches
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def table(examples):
    """Measures, sexes and rings of all examples."""
    x = torch.tensor([example["input"] for example in examples])
    sex = torch.tensor([example["targets"]["sex"] for example in examples])
    return x, sex, torch.tensor([example["targets"]["rings"] for example in examples])


args = parser.parse_args()
pl.seed_everything(args.seed, verbose=False)
splits = load("abalone").splits
data = {split: table(examples[: args.limit]) for split, examples in splits.items()}
x, _, rings = data["train"]
mean, std = x.mean(0), x.std(0)
data = {split: TensorDataset((x - mean) / std, sex, rings) for split, (x, sex, rings) in data.items()}
model = Abalone(args.lr, rings.mean(), rings.std())
trainer = pl.Trainer(
    accelerator="cpu",
    devices=1,
    max_epochs=args.epochs,
    gradient_clip_val=1.0,
    enable_progress_bar=False,
    enable_checkpointing=False,
    enable_model_summary=False,
    logger=False,
)
start = time.time()
trainer.fit(model, DataLoader(data["train"], args.batch_size, shuffle=True))
seconds = time.time() - start

scores = trainer.test(model, DataLoader(data["test"], 256), verbose=False)[0]
test = {"sex accuracy": scores["sex accuracy"], "rings RMSE": scores["rings MSE"] ** 0.5}
print(json.dumps({"test": test, "training seconds": round(seconds, 1)}))
