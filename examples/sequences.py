"""Sequence to sequence beside tags: an encoder-decoder writes out a sentence's entities, and tags its words.

python examples/sequences.py --strategy equal uw

A small T5 of Hugging Face with random weights (put a pretrained one's name in the place of its config), on
sentences drawn from the embedded grammar: without pretraining it takes thousands to learn to copy a name. It
ends in the share of answers right in full, and the tags' accuracy.
"""

import argparse
import json
import random

import matplotlib
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config

from mtlweights import Balancer
from mtlweights.problems import Problem, Task, load
from mtlweights.problems.data.grammar import sentence
from mtlweights.problems.models import EncoderDecoder, SubwordInputs
from mtlweights.train import Settings, evaluate, fit

matplotlib.use("Agg")
import matplotlib.pyplot as plt

parser = argparse.ArgumentParser()
parser.add_argument("--strategy", nargs="+", default=["equal"])
parser.add_argument("--sentences", type=int, default=2000, help="to train on")
parser.add_argument("--epochs", type=int, default=20)
parser.add_argument("--width", type=int, default=64)
parser.add_argument("--limit", type=int, help="sentences per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--figure", default="sequences.png")
args = parser.parse_args()

ner, pos = load("tagging").tasks
sizes = {"train": args.sentences, "dev": 200, "test": 400}
drawn = {}
for seed, (part, n) in enumerate(sizes.items()):
    draw = random.Random(seed)
    drawn[part] = [sentence(draw) for _ in range(min(n, args.limit or n))]
words = {word for one in drawn["train"] for word in one.words}
kinds = sorted({label[2:] for label in ner.labels if label != "O"})
vocabulary = ["<pad>", "</s>", "<unk>", *kinds, *sorted(words)]
levels = Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="<unk>"))
levels.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
tokenizer = PreTrainedTokenizerFast(tokenizer_object=levels, **special)


def answer(one):
    """``PER maria stone LOC london </s>`` as ids."""
    written = []
    for word, label in zip(one.words, one.ner, strict=True):
        written += [label[2:]] * label.startswith("B-") + [word] * (label != "O")
    return tokenizer(" ".join([*written, "</s>"])).input_ids


tasks = (Task("entities", "sequence", ("exact_match", "piece_f1")), pos)
splits = {
    part: [
        {"input": one.words, "targets": {"entities": answer(one), "pos": [*map(pos.labels.index, one.pos)]}}
        for one in rows
    ]
    for part, rows in drawn.items()
}
small = {"d_model": args.width, "d_ff": 2 * args.width, "d_kv": 16, "num_layers": 2, "num_heads": 4}
config = T5Config(vocab_size=len(vocabulary), decoder_start_token_id=0, dropout_rate=0.1, **small)
problem = Problem(
    "entities", tasks, splits, SubwordInputs(tokenizer), lambda: EncoderDecoder(config, longest=16)
)


def train(strategy):
    """Scores on test, and the share of right answers on dev after each epoch."""
    torch.manual_seed(args.seed)
    model = problem.build()
    balancer = Balancer(strategy, [task.name for task in tasks], model)
    settings = Settings(epochs=args.epochs, batch_size=16, lr=3e-3, seed=args.seed)
    history = fit(model, balancer, problem, settings, progress=False)
    scores = evaluate(model, problem, "test")
    found = {
        "entities": round(scores["entities"]["exact_match"], 4),
        "pos": round(scores["pos"]["accuracy"], 4),
    }
    return found, [row["dev"]["entities"]["exact_match"] for row in history.rows]


results = {strategy: train(strategy) for strategy in args.strategy}
figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
for strategy, (_, curve) in results.items():
    axes.plot(range(1, len(curve) + 1), curve, label=strategy)
axes.xaxis.get_major_locator().set_params(integer=True)
axes.set(xlabel="epoch", ylabel="answers right in full, dev")
axes.legend()
figure.savefig(args.figure, dpi=70)
print(json.dumps({strategy: scores for strategy, (scores, _) in results.items()}))
