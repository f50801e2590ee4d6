"""A trained model as one ONNX graph with all its heads, for any batch size and length.

  mtlweights export runs/tagging--uw--0/model

The folder it writes has everything else that the model's has: mtlweights predict and serve take it. Other
servers (Triton, KServe ...) want its model.onnx; model.pt2 is for torch.export.load. The graph is compared
with PyTorch on 200 random examples before anything is written.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

NAME = "export"
HELP = "a trained model as an ONNX graph, and for torch.export"
RESUME = "nothing was written"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or name of a trained model")
    parser.add_argument("--out", metavar="DIR", help="folder to write (default: MODEL-onnx)")


def run(args: argparse.Namespace) -> int:
    """Export, and say how close it is."""
    from ..serve import TrainedModel
    from ..serve.export import CHECKED, export

    out = args.out or f"{args.model.rstrip('/')}-onnx"
    if Path(out).resolve() == Path(args.model).resolve():
        raise ValueError(f"--out is the model's own folder {out}: choose another one.")
    off = export(TrainedModel.from_pretrained(args.model), out, say=partial(print, flush=True))
    print(f"model: {out}\nlargest difference from PyTorch on {CHECKED} examples: {off:.2g}")
    return 0
