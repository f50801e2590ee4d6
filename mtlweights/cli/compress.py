"""A trained model made smaller and faster, and a table of what each way costs.

  mtlweights compress runs/tweebank--uw--0/model
  mtlweights compress MODEL --ways int8
  mtlweights compress MODEL --ways pruned half --keep 0.25 --epochs 4

A folder for each way, for mtlweights predict and serve: onnx, the exported graph; int8, that one quantised;
pruned and half, with fewer hidden units or layers, fine-tuned under the same balancer, exported, quantised.
torchao is measured alone. The table has size, time, and each task's score on the test split with an interval.
"""

from __future__ import annotations

import argparse
from functools import partial

from ..files.escapes import visible
from .timeleft import shown

NAME = "compress"
HELP = "smaller and faster: int8, pruned, fewer layers, and what that costs"
RESUME = "the folders that are done stay; run the same command again for all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or name of a trained model")
    parser.add_argument("--out", metavar="DIR", help="where the folders go (default: MODEL-small)")
    parser.add_argument(
        "--ways", nargs="+", metavar="WAY", help="of onnx, int8, torchao, pruned, half (default: all)"
    )
    parser.add_argument("--problem", metavar="SPEC", help="its data, where they have moved")
    parser.add_argument("--keep", type=float, default=0.5, metavar="SHARE", help="of the hidden units [0.5]")
    parser.add_argument(
        "--epochs", type=int, metavar="N", help="of fine-tuning (default: a quarter of the training's)"
    )


def run(args: argparse.Namespace) -> int:
    """Compress, and print the table."""
    import torch

    from .. import problems
    from ..serve import TrainedModel
    from ..serve.compress import WAYS, compress
    from ..serve.compress.table import text_table

    torch.set_num_threads(1)
    model = TrainedModel.from_pretrained(args.model)
    spec = args.problem or model.problem
    if spec is None:
        raise ValueError("the model does not say what it was trained on: give --problem SPEC.")
    out = args.out or f"{args.model.rstrip('/')}-small"
    say = partial(print, flush=True)
    how = {"keep": args.keep, "epochs": args.epochs}
    rows = compress(model, problems.load(spec), out, args.ways or WAYS, say=say, shown=shown, **how)
    print(
        f"{visible(text_table(rows))}\n\nin brackets: difference from pytorch, 95 % interval\nfolders: {out}"
    )
    return 0
