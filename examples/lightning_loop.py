"""Lightning, automatic optimisation: one line in ``training_step``, one in ``configure_optimizers``.

python examples/lightning_loop.py            one process
python examples/lightning_loop.py 2          DDP, two processes on this machine
"""

import sys
import tempfile

import lightning.pytorch as pl
import torch
from torch import nn

from mtlweights import Balancer
from mtlweights.integrations.lightning import BalancerCallback


class Module(pl.LightningModule):
    """A shared trunk and two heads."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(8, 32), nn.ReLU())
        self.price, self.kind = nn.Linear(32, 1), nn.Linear(32, 3)
        self.balancer = Balancer("pcgrad", ["price", "kind"], self, accumulation="window")

    def training_step(self, batch, index):
        x, price, kind = batch
        states = self.trunk(x)
        losses = {
            "price": nn.functional.mse_loss(self.price(states)[:, 0], price),
            "kind": nn.functional.cross_entropy(self.kind(states), kind),
        }
        return self.balancer(losses, counts={"price": len(x), "kind": len(x)})

    def configure_optimizers(self):
        optimizer = torch.optim.AdamW(self.parameters(), lr=1e-2)
        self.balancer.attach(optimizer)  # the state rides in the checkpoint
        return optimizer


class Print(pl.Callback):
    """The losses after each epoch, from rank 0."""

    def on_train_epoch_end(self, trainer, module):
        if trainer.is_global_zero:
            print(
                trainer.current_epoch, *(f"{k}={v.item():.3f}" for k, v in module.balancer.metrics().items())
            )


if __name__ == "__main__":
    devices = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    torch.manual_seed(0)
    x = torch.randn(64, 8)
    data = torch.utils.data.TensorDataset(x, x[:, 0], x[:, 1:4].argmax(1))
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy="ddp" if devices > 1 else "auto",
        max_epochs=5,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        callbacks=[BalancerCallback(), Print()],  # the first tells where a window ends
        default_root_dir=tempfile.mkdtemp(),
        enable_progress_bar=False,
        logger=False,
    )
    trainer.fit(Module(), torch.utils.data.DataLoader(data, batch_size=8))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
