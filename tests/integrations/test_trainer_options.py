"""Options of the Trainer that change how a pass is computed, with the subclass and without."""

import pytest
import torch
from torch import nn
from transformers import BertModel, BertPreTrainedModel, Trainer

from mtlweights import Balancer
from mtlweights.integrations.huggingface import MultiTaskTrainer
from tests.integrations.test_huggingface import arguments, counted
from tests.tiny import TASKS, TinyBert, assert_close, bert_config, examples, weights_of

CHECKPOINTING = {"activation_checkpointing": True}
COMPILE = {"torch_compile": True, "torch_compile_backend": "aot_eager"}
#: Trainer options -> by how much the parameters may differ, of how far they moved
OPTIONS = {
    "checkpointing": (CHECKPOINTING, 1e-5),
    "compile": (COMPILE, 1e-3),
    "bf16": ({"bf16": True}, 0.05),
    "clipping": ({"max_grad_norm": 1e6}, 1e-6),
}
NAMES = ["uw", "pcgrad", "gradnorm", "graddrop", "famo"]
#: dynamo looks at what comes through a graph break, and warns itself
pytestmark = pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)


class Bert(BertPreTrainedModel):
    """What TinyBert is, as a model of the library: the Trainer switches checkpointing on in such a one."""

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.ner, self.cls = nn.Linear(16, 3), nn.Linear(16, 2)
        self.post_init()

    forward = TinyBert.forward


class Calling(Bert):
    """The balancer in ``forward``."""

    balancer = None

    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        out = super().forward(input_ids, ner_labels, cls_labels)
        counts = counted({"ner_labels": ner_labels, "cls_labels": cls_labels})
        return {"loss": self.balancer(out.pop("losses"), counts), **out}


def trained(folder, how, name, **options):
    torch.manual_seed(0)
    model = (Bert if how == "subclass" else Calling)(bert_config())
    balancer = Balancer(name, TASKS, model)
    sizes = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    settings = arguments(folder, **{**sizes, **options})
    if how == "subclass":
        MultiTaskTrainer(model, settings, train_dataset=examples(), balancer=balancer).train()
    else:
        model.balancer = balancer
        Trainer(model, settings, train_dataset=examples()).train()
    balancer.state_dict()
    assert int(balancer.strategy.step) == 6
    return weights_of(model)


@pytest.mark.parametrize("how", ["subclass", "forward"])
@pytest.mark.parametrize("name", NAMES)
def test_each_gives_what_the_trainer_without_it_gives(name, how, tmp_path):
    torch.manual_seed(0)
    start = weights_of(Bert(bert_config()))
    expected = trained(tmp_path, how, name)
    moved = torch.cat([(expected[key] - start[key]).flatten() for key in start]).norm()
    assert moved > 0.05
    for option, (options, share) in OPTIONS.items():
        if option == "compile":
            torch.compiler.reset()
        if name == "graddrop" and option == "bf16":
            continue  # the sign that is drawn differs where gradients nearly cancel
        found = trained(tmp_path, how, name, **options)
        apart = torch.cat([(found[key] - expected[key]).flatten() for key in start]).norm()
        assert apart <= share * moved, option


def test_reentrant_checkpointing_is_refused(tmp_path):
    options = {**CHECKPOINTING, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    for how in ("subclass", "forward"):
        with pytest.raises(ValueError, match=r"Reentrant activation checkpointing .* use_reentrant=False"):
            trained(tmp_path, how, "pcgrad", **options)


def test_the_best_model_and_its_balancer_are_loaded_at_the_end(tmp_path):
    model = TinyBert()
    balancer = Balancer("uw", TASKS, model)
    settings = arguments(
        tmp_path,
        num_train_epochs=3,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
    )
    run = MultiTaskTrainer(
        model, settings, train_dataset=examples(), eval_dataset=examples(8, seed=5), balancer=balancer
    )
    run.train()
    best = run.state.best_model_checkpoint
    saved = torch.load(f"{best}/optimizer.pt")["mtlweights"]["strategy"]
    assert set(saved) == set(balancer.state_dict()["strategy"])
    from safetensors.torch import load_file

    assert_close(weights_of(model), load_file(f"{best}/model.safetensors"))
