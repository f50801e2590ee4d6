"""Predictions of a trained model, one JSON object a line.

  mtlweights predict runs/tagging--uw--0/model tweets.conll
  mtlweights predict MODEL houses.csv --out answers.jsonl
  echo "Ada met Charles in London." | mtlweights predict MODEL -

MODEL is a folder that mtlweights train left, what export or compress made of it, or a repository of the
Hugging Face hub. A file of any length takes the memory of one batch.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

NAME = "predict"
HELP = "labels, numbers and spans for a file or standard input"
RESUME = "what was printed is whole lines; a file of --out is written at the end alone"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("model", metavar="MODEL", help="folder or name of a trained model")
    parser.add_argument("file", metavar="FILE", help="CoNLL, CSV, JSON lines or text; - is standard input")
    parser.add_argument(
        "--format",
        choices=("conll", "csv", "jsonl", "text"),
        help="of FILE (default: by its name; - is text)",
    )
    parser.add_argument("--tokens", metavar="COLUMN", help="CoNLL: the column of the words")
    parser.add_argument("--out", metavar="FILE", help="write the answers there (default: standard output)")
    parser.add_argument("--batch-size", type=int, default=64, metavar="N", help="[64]")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="[1]")


def run(args: argparse.Namespace) -> int:
    """Answer every example."""
    import torch
    from tqdm import tqdm

    from ..serve import TrainedModel
    from ..serve.sources import examples, form_of

    if args.batch_size < 1 or args.threads < 1:
        raise ValueError("--batch-size and --threads are whole numbers from 1.")
    torch.set_num_threads(args.threads)
    form = args.format or form_of(args.file)
    model = TrainedModel.from_pretrained(args.model, threads=args.threads)
    given = examples(args.file, form, model.kind, args.tokens)
    with _written(args.out) as out:
        answers = model.stream(given, args.batch_size)
        for answer in tqdm(answers, desc=args.file, unit=" examples", disable=None, leave=False):
            out.write(json.dumps(answer, ensure_ascii=False) + "\n")
    return 0


@contextmanager
def _written(path: str | None) -> Iterator[IO[str]]:
    """Standard output, or a file that appears whole."""
    import io

    from ..files.atomic import replacing

    if path is None:
        yield sys.stdout
        return
    with replacing(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="\n")
        yield text
        text.detach()
