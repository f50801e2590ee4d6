"""LoRA on a BERT: gradients of the adapters only, heads trained, both saved and loaded."""

import numpy as np
import pytest
import torch
from transformers import TrainingArguments

from mtlweights import Balancer, strategies
from mtlweights.integrations.huggingface import MultiTaskTrainer
from tests.integrations.tiny import TASKS, TinyBert, collate, examples
from tests.toys import backward

peft = pytest.importorskip("peft", reason="the extra [peft] is not installed")

FEW = ["uw", "pcgrad", "mgda", "gradnorm", "graddrop"]


def adapted(seed=0):
    config = peft.LoraConfig(r=2, target_modules=["query", "value"], modules_to_save=["ner", "cls"])
    torch.manual_seed(seed)
    model = peft.get_peft_model(TinyBert(), config)
    for name, p in model.named_parameters():
        if "lora_B" in name:  # zero at the start, where no gradient would reach lora_A
            torch.nn.init.normal_(p, std=0.1)
    return model


def trainable(model):
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def test_rows_are_over_the_adapters_only():
    model, data = adapted(), collate(examples(16))
    balancer = Balancer("mgda", TASKS, model)
    balancer(model(**data)["losses"]).backward()
    adapters = [p for name, p in model.named_parameters() if "lora_" in name]
    losses = model(**data)["losses"].values()
    rows = [torch.autograd.grad(loss, adapters, retain_graph=True) for loss in losses]
    matrix = torch.stack([torch.cat([g.flatten() for g in row]).double() for row in rows])
    norms = [balancer.metrics()[f"norm/{task}"].item() for task in TASKS]
    assert norms == pytest.approx(matrix.norm(dim=1).tolist(), rel=1e-5)
    weights = strategies.get("mgda")(2).weights((matrix @ matrix.T).numpy(), np.ones(2), np.arange(2))
    assert [w.item() for w in balancer.weights.values()] == pytest.approx(list(weights), rel=1e-4)
    with_gradient = {name for name, p in model.named_parameters() if p.grad is not None}
    assert with_gradient == set(trainable(model))
    assert {name.split(".")[-2] for name in with_gradient if "lora_" not in name} == {"default"}
    assert f"Shared: {len(adapters)} tensors" in balancer.explain()


@pytest.mark.parametrize("name", FEW)
def test_trained_by_the_trainer_and_saved(name, tmp_path):
    model = adapted()
    before, frozen = trainable(model), model.state_dict()
    frozen = {k: v.clone() for k, v in frozen.items() if k not in before}
    arguments = TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=2,
        learning_rate=0.05,
        use_cpu=True,
        report_to=[],
        save_strategy="epoch",
        disable_tqdm=True,
    )
    balancer = Balancer(name, TASKS, model)
    run = MultiTaskTrainer(model, arguments, train_dataset=examples(16), balancer=balancer)
    run.train()
    after = trainable(model)
    assert all(not torch.equal(after[k], v) for k, v in before.items())
    assert all(torch.equal(model.state_dict()[k], v) for k, v in frozen.items())
    loaded = peft.PeftModel.from_pretrained(TinyBert(), tmp_path / "checkpoint-4")
    data = collate(examples(4, seed=5))
    for key, value in model.eval()(**data).items():
        if key != "losses":
            assert torch.equal(loaded.eval()(**data)[key], value)


@pytest.mark.parametrize("name", strategies.names())
def test_adapters_and_heads_alone_are_trained(name, tmp_path):
    model, data = adapted(), collate(examples(16))
    before, frozen = trainable(model), {k: v.clone() for k, v in model.state_dict().items()}
    balancer = Balancer(name, TASKS, model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(2):
        backward(balancer, lambda: model(**data)["losses"], path="call")
        assert {k for k, p in model.named_parameters() if p.grad is not None} == before.keys()
        optimizer.step()
        optimizer.zero_grad()
    after = trainable(model)
    idle = [task for task, weight in balancer.weights.items() if weight == 0]  # EPO's programme has corners
    busy = {k: v for k, v in before.items() if not any(f".{task}." in k for task in idle)}
    assert len(idle) < 2 and all(not torch.equal(after[k], v) for k, v in busy.items())
    assert all(torch.equal(model.state_dict()[k], v) for k, v in frozen.items() if k not in before)
    model.save_pretrained(tmp_path)
    loaded = peft.PeftModel.from_pretrained(TinyBert(), tmp_path).eval()(**data)
    found = model.eval()(**data)
    assert all(torch.equal(loaded[k], found[k]) for k in ("ner_logits", "cls_logits"))
