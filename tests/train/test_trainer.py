"""The balancer inside an unmodified Hugging Face Trainer: called in ``forward``, nothing else."""

import pytest
import torch
from torch import nn

from mtlweights import Balancer


class TinyBert(nn.Module):
    """NER and classification on a BERT built from a config; returns the balancer's scalar as its loss."""

    def __init__(self, strategy, **options):
        from transformers import BertConfig, BertModel

        super().__init__()
        torch.manual_seed(0)
        config = BertConfig(
            vocab_size=50,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        self.bert = BertModel(config)
        self.ner, self.cls = nn.Linear(16, 3), nn.Linear(16, 2)
        self.balancer = Balancer(strategy, ["ner", "cls"], self, **options)

    def forward(self, input_ids, ner_labels, cls_labels):
        states = self.bert(input_ids).last_hidden_state
        loss = nn.functional.cross_entropy
        ner = loss(self.ner(states).flatten(0, 1), ner_labels.flatten())
        losses = {"ner": ner, "cls": loss(self.cls(states[:, 0]), cls_labels)}
        return {"loss": self.balancer(losses, {"ner": ner_labels.numel(), "cls": len(cls_labels)})}


def examples(n=48):
    g = torch.Generator().manual_seed(0)
    return [
        {
            "input_ids": torch.randint(0, 50, (6,), generator=g),
            "ner_labels": torch.randint(0, 3, (6,), generator=g),
            "cls_labels": torch.randint(0, 2, (), generator=g),
        }
        for _ in range(n)
    ]


def train(model, folder, size, accumulate):
    from transformers import Trainer, TrainingArguments

    arguments = TrainingArguments(
        str(folder),
        per_device_train_batch_size=size,
        gradient_accumulation_steps=accumulate,
        num_train_epochs=1,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        use_cpu=True,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=0,
    )
    Trainer(model, arguments, train_dataset=examples()).train()
    model.balancer.state_dict()
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", ["equal", "uw", "gradnorm", "pcgrad", "mgda"])
def test_four_by_four_equals_sixteen(name, tmp_path):
    big = TinyBert(name)
    start = big.bert.embeddings.word_embeddings.weight.detach().clone()
    expected = train(big, tmp_path, 16, 1)
    small = TinyBert(name, accumulation="window")
    found = train(small, tmp_path, 4, 4)
    assert (expected["bert.embeddings.word_embeddings.weight"] - start).abs().max() > 1e-3
    assert int(big.balancer.strategy.step) == int(small.balancer.strategy.step) == 3
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
