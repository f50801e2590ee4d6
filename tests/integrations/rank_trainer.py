"""Run by torchrun on every rank: the Trainer, subclassed and not, over some strategies."""

import gc
import sys

import torch
import torch.distributed as dist

from tests.integrations.test_huggingface import trained
from tests.tiny import end_group

NAMES = ["uw", "pcgrad", "gradnorm"]


def main(folder):
    gc.freeze()  # as in conftest.py
    out = {}
    for name in NAMES:
        for how in ("subclass", "forward"):
            for accumulate in (1, 2):
                model, balancer = trained(folder, how, name, 8 // accumulate, accumulate)
                out[f"{name}/{how}/{accumulate}"] = {"model": model, "balancer": balancer.state_dict()}
    torch.save(out, f"{folder}/rank{dist.get_rank()}.pt")
    end_group()


if __name__ == "__main__":
    main(sys.argv[1])
