"""Fine-tune MiniLM on SICK in a plain loop: entailment (3 classes) and relatedness (1 to 5).

python examples/plain_bert.py --strategy pcgrad
"""

import argparse
import json
import time

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import AutoModel, AutoTokenizer, get_linear_schedule_with_warmup

from mtlweights import Balancer  # mtlweights
from mtlweights.problems import load
from mtlweights.problems.models import pretrained

TASKS = ["entailment", "relatedness"]
MEAN, STD = 3.52, 1.03  # of relatedness in the training split

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--lr", type=float, default=1e-4)
parser.add_argument("--head_lr", type=float, default=1e-3)
parser.add_argument("--frozen", type=int, default=4, help="layers that stay as they are, of 6")
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--strategy", default="none")  # mtlweights


class PairModel(nn.Module):
    """One encoder for both sentences; [u; v; |u - v|; u * v] of their means goes to two heads."""

    def __init__(self, name, frozen):
        super().__init__()
        self.bert = AutoModel.from_pretrained(name, add_pooling_layer=False)
        for part in (self.bert.embeddings, *self.bert.encoder.layer[:frozen]):
            part.requires_grad_(False)
        width = 4 * self.bert.config.hidden_size
        self.entailment = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 3))
        self.relatedness = nn.Sequential(nn.Linear(width, 256), nn.ReLU(), nn.Dropout(0.1), nn.Linear(256, 1))

    def forward(self, inputs):
        states = self.bert(**inputs).last_hidden_state
        mask = inputs["attention_mask"].unsqueeze(-1)
        u, v = ((states * mask).sum(1) / mask.sum(1)).chunk(2)
        pair = torch.cat([u, v, (u - v).abs(), u * v], -1)
        return self.entailment(pair), self.relatedness(pair)[:, 0]


def loader(examples, tokenizer, args, shuffle):
    def collate(rows):
        sentences = [" ".join(row["input"][i]) for i in (0, 1) for row in rows]
        inputs = tokenizer(sentences, padding=True, return_tensors="pt")
        labels = torch.tensor([row["targets"]["entailment"] for row in rows])
        scores = torch.tensor([row["targets"]["relatedness"] for row in rows])
        return inputs, labels, (scores - MEAN) / STD

    return DataLoader(examples[: args.limit], args.batch_size, shuffle=shuffle, collate_fn=collate)


@torch.no_grad()
def evaluate(model, batches):
    model.eval()
    right, predicted, expected = [], [], []
    for inputs, labels, scores in batches:
        logits, values = model(inputs)
        right += (logits.argmax(-1) == labels).tolist()
        predicted += values.tolist()
        expected += scores.tolist()
    pearson = np.corrcoef(predicted, expected)[0, 1]
    return {"entailment accuracy": float(np.mean(right)), "relatedness Pearson": float(pearson)}


args = parser.parse_args()
torch.manual_seed(args.seed)
tokenizer = AutoTokenizer.from_pretrained(pretrained("minilm"))
data = load("sick").splits
train = loader(data["train"], tokenizer, args, shuffle=True)
model = PairModel(pretrained("minilm"), args.frozen)
heads = [*model.entailment.parameters(), *model.relatedness.parameters()]
encoder = [parameter for parameter in model.bert.parameters() if parameter.requires_grad]
optimizer = torch.optim.AdamW([{"params": encoder, "lr": args.lr}, {"params": heads, "lr": args.head_lr}])
steps = args.epochs * len(train)
scheduler = get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
balancer = args.strategy != "none" and Balancer(args.strategy, TASKS, model)  # mtlweights

start = time.time()
for epoch in range(args.epochs):
    model.train()
    total = 0.0
    for inputs, labels, scores in train:
        logits, values = model(inputs)
        losses = {
            "entailment": nn.functional.cross_entropy(logits, labels),
            "relatedness": nn.functional.mse_loss(values, scores),
        }
        loss = sum(losses.values())
        if balancer:  # mtlweights
            loss = balancer(losses)  # mtlweights
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        total += loss.item()
    dev = evaluate(model, loader(data["dev"], tokenizer, args, shuffle=False))
    print(f"epoch {epoch + 1}: loss {total / len(train):.4f}, dev {dev}")
seconds = time.time() - start

test = evaluate(model, loader(data["test"], tokenizer, args, shuffle=False))
print(json.dumps({"test": test, "training seconds": round(seconds, 1)}))
