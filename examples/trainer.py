"""The Hugging Face Trainer, LoRA included: the subclass, and no subclass at all.

python examples/trainer.py subclass
python examples/trainer.py forward
python examples/trainer.py lora
torchrun --nproc_per_node 2 examples/trainer.py subclass
"""

import sys
import tempfile

import torch
from torch import nn
from transformers import BertConfig, BertModel, Trainer, TrainingArguments

from mtlweights import Balancer
from mtlweights.integrations.huggingface import MultiTaskTrainer

TASKS = ["ner", "cls"]


class Model(nn.Module):
    """A small BERT with a head for words and one for the sentence."""

    def __init__(self):
        super().__init__()
        config = BertConfig(
            vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
        )
        self.bert = BertModel(config)
        self.ner, self.cls = nn.Linear(32, 3), nn.Linear(32, 2)

    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        states = self.bert(input_ids).last_hidden_state
        ner, cls = self.ner(states), self.cls(states[:, 0])
        losses = {}
        if ner_labels is not None:
            losses["ner"] = nn.functional.cross_entropy(ner.flatten(0, 1), ner_labels.flatten())
        if cls_labels is not None:
            losses["cls"] = nn.functional.cross_entropy(cls, cls_labels)
        return {"losses": losses, "ner_logits": ner, "cls_logits": cls}


class Balanced(nn.Module):
    """For an unmodified Trainer: the balancer is called in the model, its scalar is the loss.

    The logits are detached: under DDP whatever the forward returns takes part in the backward pass.
    """

    def __init__(self, model, strategy, **options):
        super().__init__()
        self.model, self.balancer = model, Balancer(strategy, TASKS, self, **options)

    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        out = self.model(input_ids, ner_labels, cls_labels)
        counts = {"ner": int((ner_labels != -100).sum()), "cls": len(cls_labels)}
        loss = self.balancer(out["losses"], counts)
        return {
            "loss": loss,
            "ner_logits": out["ner_logits"].detach(),
            "cls_logits": out["cls_logits"].detach(),
        }


def accuracy(prediction):
    """Per task; labels and outputs come by name."""
    out = {}
    for task in TASKS:
        labels, logits = prediction.label_ids[f"{task}_labels"], prediction.predictions[f"{task}_logits"]
        out[task] = float((logits.argmax(-1) == labels)[labels != -100].mean())
    return out


def examples(n):
    """Sentences of random words; word labels and the sentence's follow from the words."""
    ids = torch.randint(0, 100, (n, 8))
    return [{"input_ids": row, "ner_labels": row % 3, "cls_labels": (row[0] > 49).long()} for row in ids]


def main(how):
    torch.manual_seed(0)
    model = Model()
    arguments = TrainingArguments(
        tempfile.mkdtemp(),
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        num_train_epochs=6,
        learning_rate=1e-2,
        logging_steps=8,
        eval_strategy="no" if how == "forward" else "epoch",
        save_strategy="no",
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
    )
    data = {"train_dataset": examples(64), "eval_dataset": examples(16)}
    if how == "forward":
        model = Balanced(model, "uw", accumulation="window")
        return Trainer(model, arguments, train_dataset=data["train_dataset"]).train()
    if how == "lora":
        from peft import LoraConfig, get_peft_model

        # heads are no adapters: named here, they are trained and saved
        model = get_peft_model(model, LoraConfig(target_modules=["query", "value"], modules_to_save=TASKS))
    balancer = Balancer("pcgrad", TASKS, model, accumulation="window")
    trainer = MultiTaskTrainer(model, arguments, balancer=balancer, compute_metrics=accuracy, **data)
    return trainer.train()


if __name__ == "__main__":
    print(main(sys.argv[1]).metrics["train_loss"])
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
