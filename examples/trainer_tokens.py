"""Fine-tune MiniLM on Tweebank with the Hugging Face Trainer: named entities and parts of speech.

python examples/trainer_tokens.py --strategy pcgrad
"""

import argparse
import json
import tempfile

from seqeval.metrics import f1_score
from seqeval.scheme import IOB2
from torch import nn
from transformers import (
    AutoModel,
    AutoTokenizer,
    DataCollatorWithPadding,
    Trainer,
    TrainingArguments,
    set_seed,
)
from transformers.modeling_outputs import ModelOutput

from mtlweights import Balancer  # mtlweights
from mtlweights.problems import load
from mtlweights.problems.models import pretrained

TASKS = ["ner", "pos"]

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=3)
parser.add_argument("--batch_size", type=int, default=16)
parser.add_argument("--lr", type=float, default=5e-4)
parser.add_argument("--frozen", type=int, default=3, help="layers that stay as they are, of 6")
parser.add_argument("--limit", type=int, help="examples per split, for a trial run")
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--strategy", default="none")  # mtlweights


class TaggingModel(nn.Module):
    """A linear head per task on every token."""

    def __init__(self, name, labels):
        super().__init__()
        self.bert = AutoModel.from_pretrained(name, add_pooling_layer=False)
        for part in (self.bert.embeddings, *self.bert.encoder.layer[: args.frozen]):
            part.requires_grad_(False)
        self.dropout = nn.Dropout(0.1)
        self.heads = nn.ModuleDict(
            {task: nn.Linear(self.bert.config.hidden_size, len(labels[task])) for task in TASKS}
        )
        self.balancer = args.strategy != "none" and Balancer(args.strategy, TASKS, self)  # mtlweights

    def forward(self, input_ids, attention_mask, ner_labels, pos_labels):
        states = self.dropout(self.bert(input_ids, attention_mask).last_hidden_state)
        logits = {task: head(states) for task, head in self.heads.items()}
        losses = {
            "ner": nn.functional.cross_entropy(logits["ner"].flatten(0, 1), ner_labels.flatten()),
            "pos": nn.functional.cross_entropy(logits["pos"].flatten(0, 1), pos_labels.flatten()),
        }
        loss = sum(losses.values())
        if self.balancer:  # mtlweights
            loss = self.balancer(losses)  # mtlweights
        return ModelOutput(loss=loss, ner_logits=logits["ner"], pos_logits=logits["pos"])


class Collator(DataCollatorWithPadding):
    """Pads the label sets too; -100 is left out of the losses."""

    def __call__(self, rows):
        rows = [dict(row) for row in rows]
        labels = {f"{task}_labels": [row.pop(f"{task}_labels") for row in rows] for task in TASKS}
        batch = super().__call__(rows)
        width = batch["input_ids"].shape[1]
        for name, lists in labels.items():
            batch[name] = batch["input_ids"].new_tensor([one + [-100] * (width - len(one)) for one in lists])
        return batch


def encode(examples, tokenizer, limit):
    """Sub-words of each tweet; a word's labels stand at its first one."""
    rows = []
    for example in examples[:limit]:
        row = tokenizer(example["input"], is_split_into_words=True, truncation=True, max_length=128)
        words = row.word_ids()
        first = [w is not None and (i == 0 or w != words[i - 1]) for i, w in enumerate(words)]
        row = {"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]}
        for task in TASKS:
            labels = example["targets"][task]
            row[f"{task}_labels"] = [labels[w] if use else -100 for w, use in zip(words, first, strict=True)]
        rows.append(row)
    return rows


def metrics(labels):
    """Span F1 of the entities, accuracy of the parts of speech."""

    def compute(prediction):
        logits, (ner, pos) = prediction.predictions, prediction.label_ids
        found, names = logits[0].argmax(-1), labels["ner"]
        spans = [
            [[names[i] for i in row[truth != -100]] for row, truth in zip(tags, ner, strict=True)]
            for tags in (ner, found)
        ]
        f1 = f1_score(*spans, mode="strict", scheme=IOB2, zero_division=0)
        accuracy = (logits[1].argmax(-1) == pos)[pos != -100].mean()
        return {"NER F1": float(f1), "POS accuracy": float(accuracy)}

    return compute


args = parser.parse_args()
set_seed(args.seed)
problem = load("tweebank")
labels = {task.name: task.labels for task in problem.tasks}
tokenizer = AutoTokenizer.from_pretrained(pretrained("minilm"))
data = {split: encode(examples, tokenizer, args.limit) for split, examples in problem.splits.items()}
arguments = TrainingArguments(
    tempfile.mkdtemp(),
    num_train_epochs=args.epochs,
    per_device_train_batch_size=args.batch_size,
    per_device_eval_batch_size=64,
    learning_rate=args.lr,
    warmup_steps=0.1,
    seed=args.seed,
    logging_strategy="epoch",
    save_strategy="no",
    report_to=[],
    disable_tqdm=True,
    dataloader_pin_memory=False,
    use_cpu=True,
)
trainer = Trainer(
    TaggingModel(pretrained("minilm"), labels),
    arguments,
    train_dataset=data["train"],
    data_collator=Collator(tokenizer),
    compute_metrics=metrics(labels),
)
seconds = trainer.train().metrics["train_runtime"]
scores = trainer.evaluate(data["test"], metric_key_prefix="test")
test = {name: scores[f"test_{name}"] for name in ("NER F1", "POS accuracy")}
print(json.dumps({"test": test, "training seconds": round(seconds, 1)}))
