"""A search over strategies around a Lightning module: `mtlweights.tune` with a training of one's own.

python examples/lightning_search.py
"""

import tempfile

import lightning.pytorch as pl
import torch
from torch import nn

import mtlweights
from mtlweights import Balancer

TASKS = ["price", "kind"]


class Module(pl.LightningModule):
    """A shared trunk and two heads."""

    def __init__(self, strategy, hyperparameters, lr):
        super().__init__()
        self.lr = lr
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)
        self.balancer = Balancer(strategy, TASKS, self, **hyperparameters)

    def losses(self, batch):
        x, price, kind = batch
        states = self.trunk(x)
        return {
            "price": nn.functional.mse_loss(self.price(states)[:, 0], price),
            "kind": nn.functional.cross_entropy(self.kind(states), kind),
        }

    def training_step(self, batch, index):
        return self.balancer(self.losses(batch))

    def validation_step(self, batch, index):
        losses = self.losses(batch)
        # in units of what a constant guess costs, so that no task outweighs the other
        self.log("score", -(losses["price"] + losses["kind"] / 1.1))

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=self.lr)
        self.balancer.attach(optimizer)
        return optimizer


def objective(trial, strategy, hyperparameters):
    """The validation score of one training."""
    torch.manual_seed(0)
    module = Module(strategy, hyperparameters, trial.suggest_float("lr", 1e-3, 1e-1, log=True))
    x = torch.randn(96, 8)
    data = torch.utils.data.TensorDataset(x, x[:, 0], x[:, 1:4].argmax(1))
    train, dev = torch.utils.data.random_split(data, [64, 32])
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=3,
        default_root_dir=tempfile.mkdtemp(),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )
    loaders = [torch.utils.data.DataLoader(part, batch_size=16) for part in (train, dev)]
    trainer.fit(module, *loaders)
    return trainer.callback_metrics["score"].item()


if __name__ == "__main__":
    found = mtlweights.tune(objective, ["uw", "pcgrad", "fixed"], n_tasks=len(TASKS), trials=6)
    print(found.value, found.best.params)
