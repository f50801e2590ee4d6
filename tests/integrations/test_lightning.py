"""Automatic optimisation of a real Lightning Trainer, with and without the callback."""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from mtlweights import Balancer, strategies
from tests.integrations.tiny import (
    MICRO,
    SEVERAL,
    assert_close,
    launch,
    plain_loop,
    toy_parts,
    weights_of,
)
from tests.toys import assert_same_state, batch, losses_of, names, toy

pl = pytest.importorskip("lightning.pytorch", reason="the extra [lightning] is not installed")
from mtlweights.integrations.lightning import BalancerCallback  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers:UserWarning"),
]
ALL = [name for name in strategies.names() if name not in SEVERAL]
FEW = ["uw", "gradnorm", "pcgrad", "random", "dwa", "famo"]


class Module(pl.LightningModule):
    """The toy with dropout on request; the only line that knows of balancing is in ``training_step``."""

    def __init__(self, name, dropout=0.0, adam=False, **options):
        super().__init__()
        self.net, self.dropout, self.adam = toy(3).double(), nn.Dropout(dropout), adam
        self.balancer = Balancer(name, names(3), self, **options)

    def losses(self, data):
        x, y, z = data
        return losses_of(self.net, (self.dropout(x), y, z))

    def training_step(self, data, index):
        losses = self.losses(data)
        return self.balancer(losses, dict.fromkeys(losses, len(data[0])))

    def configure_optimizers(self):
        kind = torch.optim.Adam if self.adam else torch.optim.SGD
        optimizer = kind(self.parameters(), lr=0.05)
        self.balancer.attach(optimizer)
        return optimizer


class Validated(Module):
    def validation_step(self, data, index):
        losses = self.losses(data)
        self.log_dict({f"val/{task}": loss for task, loss in losses.items()})
        self.log("val/sum", self.balancer(losses))


def loader(size, n=32, seed=0, shuffle=False):
    data = torch.utils.data.TensorDataset(*batch(n, seed, torch.float64))
    return torch.utils.data.DataLoader(data, size, shuffle=shuffle)


def trainer(folder, **options):
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    quiet |= {"enable_checkpointing": False, "accelerator": "cpu", "devices": 1, "max_epochs": 1}
    return pl.Trainer(default_root_dir=folder, **{**quiet, **options})


def trained(folder, name, size, accumulate=1, callbacks=True, n=32, window=None, **options):
    window = {"accumulation": "window", **(window or {})} if accumulate > 1 else {}
    module = Module(name, **window)
    run = trainer(
        folder,
        accumulate_grad_batches=accumulate,
        callbacks=[BalancerCallback()] if callbacks else [],
        **options,
    )
    run.fit(module, loader(size, n))
    module.balancer.state_dict()
    return module, run


@pytest.mark.parametrize("name", ALL)
def test_any_strategy_and_four_by_four_equals_sixteen(name, tmp_path):
    expected, _ = trained(tmp_path, name, 16)
    found, _ = trained(tmp_path, name, 4, 4)
    assert int(expected.balancer.strategy.step) == int(found.balancer.strategy.step) == 2
    start = weights_of(toy(3).double())
    assert max((expected.net.state_dict()[k] - v).abs().max() for k, v in start.items()) > 1e-4
    assert_close(weights_of(found), weights_of(expected))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_batches_equal_a_plain_loop(name, tmp_path):
    reference = toy(3).double()
    expected = plain_loop(name, reference, names(3), toy_parts(reference, loader(4, 48)))
    assert_close(weights_of(trained(tmp_path, name, 4, MICRO, n=48)[0].net), expected)


@pytest.mark.parametrize(("precision", "share"), [("bf16-mixed", 0.1), ("bf16-true", 0.3)])
@pytest.mark.parametrize("name", FEW)
def test_bf16(name, precision, share, tmp_path):
    """Parameters in bf16 lose steps that are small beside them, whatever the loss."""
    ends = []
    for chosen in ("32-true", precision):
        module = Module(name).float()
        data = torch.utils.data.TensorDataset(*batch(32, 0))
        trainer(tmp_path, precision=chosen).fit(module, torch.utils.data.DataLoader(data, 8))
        module.balancer.state_dict()
        assert int(module.balancer.strategy.step) == 4
        ends.append(torch.cat([p.detach().float().flatten() for p in module.net.parameters()]))
    start = torch.cat([p.detach().flatten() for p in toy(3).parameters()])
    assert (ends[1] - ends[0]).norm() <= share * (ends[0] - start).norm()


def test_a_short_last_window(tmp_path):
    """Seven batches of four in windows of three: Lightning steps after the last one alone."""
    found, _ = trained(tmp_path, "mgda", 4, 3, n=28)
    assert int(found.balancer.strategy.step) == 3
    reference = toy(3).double()
    balancer = Balancer("mgda", names(3), reference)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.05)
    whole = [x.split((12, 12, 4)) for x in batch(28, 0, torch.float64)]
    for k, part in enumerate(zip(*whole, strict=True)):
        optimizer.zero_grad()
        # Lightning divides by 3 also where there is one: the update is a third
        (balancer(losses_of(reference, part)) / (3 if k == 2 else 1)).backward()
        optimizer.step()
    assert_close(weights_of(found.net), weights_of(reference))


def test_the_callback_is_believed_before_an_accelerator_of_another_loop(tmp_path):
    from accelerate import Accelerator

    expected, _ = trained(tmp_path, "pcgrad", 16)
    Accelerator(cpu=True)
    found, _ = trained(tmp_path, "pcgrad", 4, 4)
    assert_close(weights_of(found), weights_of(expected))


def test_without_the_callback_a_number_of_steps_does(tmp_path):
    expected, _ = trained(tmp_path, "pcgrad", 16)
    found, _ = trained(tmp_path, "pcgrad", 4, 4, callbacks=False, window={"accumulation_steps": 4})
    assert_close(weights_of(found), weights_of(expected))


def test_clipping_sees_the_combined_norm(tmp_path):
    seen = []

    class Look(pl.Callback):
        def on_before_optimizer_step(self, run, module, optimizer):
            seen.append(
                torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None]).norm()
            )

    start = weights_of(toy(3).double())
    for clip in (None, 0.5):
        module = Module("mgda")
        trainer(tmp_path, gradient_clip_val=clip, callbacks=[Look()], limit_train_batches=1).fit(
            module, loader(32)
        )
        step = torch.cat([(start[k] - p).flatten() for k, p in weights_of(module.net).items()]).norm() / 0.05
        assert step.item() == pytest.approx(seen[-1].item() if clip is None else 0.5, rel=1e-5)
    reference = toy(3).double()
    Balancer("mgda", names(3), reference)(losses_of(reference, batch(32, 0, torch.float64))).backward()
    norm = torch.cat([p.grad.flatten() for p in reference.parameters() if p.grad is not None]).norm()
    assert seen == [pytest.approx(norm.item(), rel=1e-6)] * 2 and norm > 0.5


def run_of(name, folder, accumulate, when):
    """A trainer that saves every step or epoch, and a module with dropout."""
    module = Module(name, 0.3, True, **({"accumulation": "window"} if accumulate > 1 else {}))
    often = {"every_n_train_steps": 1} if when == "step" else {"every_n_epochs": 1}
    keep = pl.callbacks.ModelCheckpoint(folder, "{step}", save_top_k=-1, **often)
    options = {"max_epochs": 3, "accumulate_grad_batches": accumulate, "enable_checkpointing": True}
    return trainer(folder, callbacks=[BalancerCallback(), Reseed(), keep], **options), module


def outcome(module):
    return {"net": dict(module.net.state_dict()), "balancer": module.balancer.state_dict()}


class Reseed(pl.Callback):
    """Lightning saves no generator: dropout is drawn anew for every batch, resumed or not."""

    def on_train_batch_start(self, run, module, data, index):
        torch.manual_seed(100 * run.current_epoch + index)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.parametrize("when", ["step", "epoch"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("name", FEW)
def test_ckpt_path_resumes_bit_for_bit(name, accumulate, when, tmp_path):
    run, whole = run_of(name, tmp_path, accumulate, when)
    run.fit(whole, loader(8))
    steps = 4 // accumulate
    for step in (steps, 2 * steps):  # Lightning resumes where an epoch ends
        run, again = run_of(name, tmp_path, accumulate, when)
        run.fit(again, loader(8), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert_same_state(outcome(again), outcome(whole))


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty:UserWarning")
@pytest.mark.filterwarnings("ignore:You're resuming from a checkpoint that ended before:UserWarning")
def test_an_epoch_ends_once_when_the_next_begins(tmp_path):
    seen = []

    class Record(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def end_epoch(self, mean_losses, scores):
            seen.append(scores)

    run, module = run_of(Record, tmp_path, 1, "step")
    run.fit(module, loader(8))
    assert seen == [None, None]
    for step, left in ((4, 2), (6, 1)):  # saved at the end of the first epoch, and within the second
        seen.clear()
        run, module = run_of(Record, tmp_path, 1, "step")
        run.fit(module, loader(8), ckpt_path=tmp_path / f"step={step}.ckpt")
        assert len(seen) == left


def test_logs_and_scores(tmp_path):
    seen = []

    class Record(strategies.LossStrategy):
        def combine(self, losses, present):
            return losses.sum()

        def end_epoch(self, mean_losses, scores):
            seen.append(scores)

    from lightning.pytorch.loggers import CSVLogger

    def scores(metrics):
        return {"t0": 1 - metrics["val/t0"], "t2": 0.5}

    module = Validated(Record)
    logger = CSVLogger(tmp_path)
    callback = BalancerCallback(scores=scores)
    run = trainer(tmp_path, max_epochs=2, logger=logger, log_every_n_steps=1, callbacks=[callback])
    run.fit(module, loader(16), loader(16, seed=2))
    assert len(seen) == 2 and all(math.isfinite(s[0]) and math.isnan(s[1]) and s[2] == 0.5 for s in seen)
    header = (tmp_path / "lightning_logs" / "version_0" / "metrics.csv").read_text().splitlines()[0]
    assert {"loss/t0", "weight/t2", "val/t1"} <= set(header.split(","))
    total = sum(run.callback_metrics[f"val/t{i}"] for i in range(3))
    torch.testing.assert_close(run.callback_metrics["val/sum"], total)


def test_a_module_without_a_balancer(tmp_path):
    module = Module("equal")
    del module.balancer
    with pytest.raises(ValueError, match="Module has no attribute `balancer`: set one, or pass it"):
        trainer(tmp_path, callbacks=[BalancerCallback()]).fit(module, loader(16))


def test_two_processes_equal_one(tmp_path):
    """DDP x2, batches of 8 (or twice 4) a rank, clipped: as one process with 16, ranks bit-identical."""
    launch(Path(__file__).with_name("rank_lightning.py"), tmp_path)
    for name in ("uw", "pcgrad", "gradnorm", "random"):
        expected = weights_of(trained(tmp_path, name, 16, gradient_clip_val=0.5)[0].net)
        for accumulate in (1, 2):
            first, second = (torch.load(tmp_path / f"{name}-{accumulate}-{rank}.pt") for rank in range(2))
            assert_same_state(first, second)
            assert_close(first["net"], expected)
