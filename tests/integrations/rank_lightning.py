"""Started by Lightning on every rank: DDP over two processes, some strategies."""

import os
import sys

import lightning.pytorch as pl
import torch

from mtlweights.integrations.lightning import BalancerCallback
from tests.integrations.test_lightning import Module, trainer
from tests.tiny import end_group, weights_of
from tests.toys import batch

NAMES = ["uw", "pcgrad", "gradnorm", "random"]


def loader(size):
    """This rank's half of the rows, in order: Lightning's own sampler would shuffle them."""
    data = torch.utils.data.TensorDataset(*batch(32, 0, torch.float64))
    sampler = torch.utils.data.DistributedSampler(
        data, 2, int(os.environ.get("LOCAL_RANK", 0)), shuffle=False
    )
    return torch.utils.data.DataLoader(data, size, sampler=sampler)


def main(folder):
    for name in NAMES:
        for accumulate in (1, 2):
            module = Module(name, **({"accumulation": "window"} if accumulate > 1 else {}))
            run = trainer(
                folder,
                devices=2,
                # the toy has a layer that no task reaches
                strategy=pl.strategies.DDPStrategy(find_unused_parameters=True),
                accumulate_grad_batches=accumulate,
                gradient_clip_val=0.5,
                use_distributed_sampler=False,
                callbacks=[BalancerCallback()],
            )
            run.fit(module, loader(8 // accumulate))
            out = {"net": weights_of(module.net), "balancer": module.balancer.state_dict()}
            torch.save(out, f"{folder}/{name}-{accumulate}-{run.global_rank}.pt")


if __name__ == "__main__":
    main(sys.argv[1])
    end_group()
