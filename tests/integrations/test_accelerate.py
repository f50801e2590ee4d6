"""A real Accelerator: accumulation, mixed precision, clipping, checkpoints, two processes."""

import pytest
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from torch import nn

from mtlweights import Balancer, strategies
from tests.tiny import MICRO, SEVERAL, assert_close, on_ranks, plain_loop, toy_parts, weights_of
from tests.toys import assert_same_state, batch, named, names, toy

ALL = [name for name in strategies.names() if name not in SEVERAL]
FEW = ["uw", "pcgrad", "gradnorm", "random", "famo"]
CLIP = 0.5


def loader(size, n=48, dtype=torch.float64):
    data = torch.utils.data.TensorDataset(*batch(n, 0, dtype))
    return torch.utils.data.DataLoader(data, size)


class Run:
    """A model, its balancer and optimizer under an Accelerator; ``attach`` lets the state ride."""

    def __init__(self, name, size, accumulate=1, attach=False, dtype=torch.float64, adam=False, **options):
        # the toy has a layer that no task reaches, as DDP itself wants to know
        handlers = [DistributedDataParallelKwargs(find_unused_parameters=True)]
        self.accelerator = Accelerator(
            cpu=True, gradient_accumulation_steps=accumulate, kwargs_handlers=handlers, **options
        )
        model = named(dtype)
        kind = torch.optim.Adam if adam else torch.optim.SGD
        optimizer = kind(model.parameters(), lr=0.05)
        self.model, self.optimizer, self.loader = self.accelerator.prepare(
            model, optimizer, loader(size, dtype=dtype)
        )
        window = {"accumulation": "window"} if accumulate > 1 else {}
        self.balancer = Balancer(name, names(3), self.model, **window)
        if attach:
            self.balancer.attach(self.optimizer)
        self.norms = []

    def epoch(self):
        for data in self.loader:
            with self.accelerator.accumulate(self.model):
                losses = self.model(data)
                self.accelerator.backward(self.balancer(losses, dict.fromkeys(losses, len(data[0]))))
                if self.accelerator.sync_gradients:
                    self.norms.append(self.accelerator.clip_grad_norm_(self.model.parameters(), CLIP))
                self.optimizer.step()
                self.optimizer.zero_grad()
        return self

    def outcome(self):
        inner = self.accelerator.unwrap_model(self.model)
        return {"model": weights_of(inner), "balancer": self.balancer.state_dict()}


@pytest.mark.parametrize("name", ALL)
def test_accumulate_and_clip_equal_one_big_batch(name):
    expected, found = Run(name, 16).epoch(), Run(name, 4, 4).epoch()
    assert_close(found.outcome()["model"], expected.outcome()["model"])
    assert int(found.balancer.strategy.step) == 3
    torch.testing.assert_close(torch.stack(found.norms), torch.stack(expected.norms))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_batches_equal_a_plain_loop(name):
    reference = toy(3).double()
    expected = plain_loop(name, reference, names(3), toy_parts(reference, loader(4)), CLIP)
    assert_close(Run(name, 4, MICRO).epoch().outcome()["model"], expected)


@pytest.mark.parametrize("name", FEW)
def test_bf16(name):
    """Weights from full-precision sums of half-precision gradients: near those of full precision."""
    data, model = batch(16, 0, torch.float32), named()
    exact = Balancer(name, names(3), model)
    exact(model(data)).backward()
    found = Run(name, 16, dtype=torch.float32, mixed_precision="bf16")
    losses = found.model(data)
    found.accelerator.backward(found.balancer(losses))
    for task, weight in exact.weights.items():
        assert found.balancer.weights[task].item() == pytest.approx(weight.item(), rel=0.05, abs=0.02)
    assert found.model.encoder[0].weight.grad.dtype == torch.float32
    assert losses["t1"].item() != model(data)["t1"].item()
    found.optimizer.zero_grad()
    start = sum(x.item() for x in found.model(batch(48)).values())
    for _ in range(3):
        found.epoch()
    assert sum(x.item() for x in found.model(batch(48)).values()) < start


@pytest.mark.parametrize("how", ["rides", "registered"])
@pytest.mark.parametrize("name", FEW)
def test_save_state_and_load_state(name, how, tmp_path):
    def run():
        made = Run(name, 8, attach=how == "rides", adam=True)
        if how == "registered":
            made.accelerator.register_for_checkpointing(made.balancer)
        return made

    whole = run().epoch()
    whole.accelerator.save_state(tmp_path)
    expected = whole.epoch().outcome()
    again = run()
    again.accelerator.load_state(tmp_path)
    assert int(again.balancer.strategy.step) == 6
    assert_same_state(again.epoch().outcome(), expected)


def rank_main(rank, folder):
    out = {}
    for name in FEW:
        for accumulate in (1, 2):
            run = Run(name, 8 // accumulate, accumulate).epoch()
            assert isinstance(run.model, nn.parallel.DistributedDataParallel)
            out[f"{name}/{accumulate}"] = run.outcome()
    torch.save(out, f"{folder}/{rank}.pt")


def test_two_processes_equal_one(tmp_path):
    first, second = on_ranks(rank_main, tmp_path)
    assert len(first) == 2 * len(FEW)
    for key, found in first.items():
        assert_same_state(found, second[key])
        assert_close(found["model"], Run(key.split("/")[0], 16).epoch().outcome()["model"])
