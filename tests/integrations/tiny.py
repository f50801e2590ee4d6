"""Tiny models, data and checks that the tests of training loops share."""

import gc
import os
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from mtlweights import Balancer, strategies
from tests.toys import losses_of, names

ROOT = Path(__file__).parents[2]
TASKS = ["ner", "cls"]
MICRO = 6  # micro-batches per optimizer step of a strategy of several batches
SEVERAL = [name for name in strategies.names() if strategies.get(name).batches > 1]


def bert_config(**options):
    """Two layers of 16, no dropout unless asked for."""
    from transformers import BertConfig

    small = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    off = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    return BertConfig(vocab_size=50, **{**small, **off, **options})


class TinyBert(nn.Module):
    """Labels of words and of the sentence; returns the losses of the label sets it is given."""

    def __init__(self, seed=0, **options):
        from transformers import BertModel

        super().__init__()
        torch.manual_seed(seed)
        self.bert = BertModel(bert_config(**options))
        self.ner, self.cls = nn.Linear(16, 3), nn.Linear(16, 2)

    def forward(self, input_ids, ner_labels=None, cls_labels=None):
        states = self.bert(input_ids).last_hidden_state
        ner, cls = self.ner(states), self.cls(states[:, 0])
        losses, loss = {}, nn.functional.cross_entropy
        if ner_labels is not None:
            losses["ner"] = loss(ner.flatten(0, 1), ner_labels.flatten())
        if cls_labels is not None:
            losses["cls"] = loss(cls, cls_labels)
        return {"losses": losses, "ner_logits": ner, "cls_logits": cls}


def examples(n=48, seed=0, ignored=0.3):
    """Random sentences of 6 words; a share of the word labels does not count."""
    g = torch.Generator().manual_seed(seed)
    out = []
    for _ in range(n):
        ids, ner = torch.randint(0, 50, (6,), generator=g), torch.randint(0, 3, (6,), generator=g)
        hidden = torch.rand(6, generator=g) < ignored
        hidden[0] = False
        cls = torch.randint(0, 2, (), generator=g)
        out.append({"input_ids": ids, "ner_labels": ner.masked_fill(hidden, -100), "cls_labels": cls})
    return out


def collate(rows):
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_close(found, expected, atol=1e-6, rtol=1e-5):
    """Same weights, but for the biases of keys: they change no attention, their gradient is rounding."""
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        if name.endswith("key.bias"):
            continue
        torch.testing.assert_close(
            found[name], value, rtol=rtol, atol=atol, msg=lambda m, n=name: f"{n}: {m}"
        )


def plain_loop(name, model, tasks, parts, clip=None):
    """The optimizer steps after every six of ``parts``: (losses, counts)."""
    balancer = Balancer(name, tasks, model, accumulation_steps=MICRO)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    start = weights_of(model)
    for k, (losses, counts) in enumerate(parts):
        (balancer(losses(), counts) / MICRO).backward()
        if k % MICRO == MICRO - 1:
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    end = weights_of(model)
    assert int(balancer.strategy.step) == 2 and max((end[k] - start[k]).abs().max() for k in start) > 1e-4
    return end


def toy_parts(model, loader):
    """The losses and counts of a loop over the toy's data."""
    return [(partial(losses_of, model, data), dict.fromkeys(names(3), len(data[0]))) for data in loader]


def free_port():
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def launch(script, *arguments, processes=1):
    """Run a script in processes of its own (torchrun if there are several) and return what it printed.

    Once more if Gloo aborted a process while its interpreter ended (see `end_group`): that is no failure of
    the script.
    """
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--nproc_per_node", str(processes)]
        command += ["--master_addr", "localhost", "--master_port", str(free_port())]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    for _ in range(3):
        done = subprocess.run(
            [*command, script, *map(str, arguments)], capture_output=True, text=True, env=env, cwd=ROOT
        )
        if "terminate called without an active exception" not in done.stderr:
            break
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rank_environment(rank, port, world=2):
    """What a launcher tells a process of a group on one machine."""
    torch.set_num_threads(1)
    address = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.environ |= {**address, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}


def _rank(rank, main, port, world, arguments):
    rank_environment(rank, port, world)
    dist.init_process_group("gloo", rank=rank, world_size=world)
    main(rank, *arguments)
    end_group()


def end_group():
    """Leaves Gloo no tensor to free while the interpreter ends, in a thread of its own: it would abort."""
    gc.unfreeze()
    gc.collect()
    dist.barrier()
    dist.destroy_process_group()


def on_ranks(main, folder, *arguments, world=2):
    """``main(rank, folder, ...)`` in the processes of a gloo group; what each left in ``folder/rank.pt``."""
    mp.spawn(_rank, (main, free_port(), world, (str(folder), *arguments)), nprocs=world)
    return [torch.load(f"{folder}/{rank}.pt") for rank in range(world)]
