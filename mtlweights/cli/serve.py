"""A trained model over HTTP, until a signal.

  mtlweights serve runs/tagging--uw--0/model
  curl localhost:8000/predict -H 'Content-Type: application/json' -d '{"inputs": [{"text": "A text."}]}'

/docs shows what it takes and gives, /health and /ready are for probes, /metrics for Prometheus. A token, from
--token-file or the variable MTLWEIGHTS_TOKEN, is asked of every client but of those three.
"""

from __future__ import annotations

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

NAME = "serve"
HELP = "a trained model over HTTP"
RESUME = "every request that was taken was answered"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or name of a trained model")
    parser.add_argument("--host", default="127.0.0.1", metavar="ADDRESS", help="[127.0.0.1]")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="[8000]")
    parser.add_argument("--token-file", metavar="FILE", help="a file with the bearer token")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the model [1]")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", type=int, default=1 << 20, metavar="BYTES", help="[1 MiB]")
    limits.add_argument("--max-items", type=int, default=64, metavar="N", help="examples of a request [64]")
    limits.add_argument("--max-words", type=int, default=512, metavar="N", help="of a text [512]")
    limits.add_argument("--rate", type=float, default=0.0, metavar="N", help="a client's, per second [none]")
    limits.add_argument("--queue", type=int, default=1024, metavar="N", help="examples that may wait [1024]")
    limits.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="of a request [10]")
    limits.add_argument("--drain", type=float, default=5.0, metavar="SECONDS", help="from signal to end [5]")


def run(args: argparse.Namespace) -> int:
    """Serve."""
    for package in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(package) is None:
            raise ImportError(f"serve needs the package {package}: pip install 'mtlweights[serve]'")
    import torch

    from ..serve import TrainedModel
    from ..serve.service import Limits, serve

    torch.set_num_threads(args.threads)
    sizes = {"body": args.max_body, "items": args.max_items, "words": args.max_words, "queue": args.queue}
    limits = Limits(**sizes, rate=args.rate, seconds=args.timeout, drain=args.drain)
    model = TrainedModel.from_pretrained(args.model, threads=args.threads)
    serve(model, args.host, args.port, limits, _token(args.token_file), args.log_level)
    return 0


def _token(file: str | None) -> str | None:
    if file is None:
        return os.environ.get("MTLWEIGHTS_TOKEN")
    return Path(file).read_text(encoding="utf-8").strip()
