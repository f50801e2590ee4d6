"""A Hugging Face Trainer for models that return one loss per task."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property, partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_pt_utils import find_batch_size

from ..balancer.balancer import Balancer
from .outputs import read

Build = Callable[[nn.Module, Any], Balancer]
Scores = Callable[[dict[str, float]], Mapping[str, float]]


class MultiTaskTrainer(Trainer):
    """A Trainer whose model returns one loss per task; a Balancer makes one of them.

    The model's output (a dict, a ModelOutput or a tuple) holds them as ``losses``, or as the first item of
    a tuple: task -> mean loss [], or the losses in the order of the balancer's tasks; None where a batch
    lacks a task. How many items each mean is over is the output's ``counts`` (task -> number), else read
    from the input ``<task>_labels``: integers but -100, floats but NaN. A task without any is left out; a
    batch without any label adds nothing to training, and nothing to the loss of an evaluation.

    Losses are logged as means since the last log, over all processes, as ``loss/<task>``, with the last
    step's ``weight/<task>`` and, for gradient methods, norms and cosines. The balancer's state is saved and
    restored with the optimizer's. Each epoch is ended in the balancer when the next begins, or with
    ``scores`` by every evaluation in training. A strategy that wants the losses of a batch after the step
    (FAMO) gets them, for one more forward pass.

    Predictions and labels in ``compute_metrics`` and ``predict`` are dicts by the names of the model's
    outputs and inputs, for whichever label sets the data has; a tuple output gives the rest of the tuple.

    Args:
        balancer: A Balancer on this model, or with ``model_init`` a function of (model, trial) that makes
            one, called anew for every fresh model; trial is None outside ``hyperparameter_search``.
        scores: The metrics of an evaluation -> task -> validation score, higher better, 1 = target
            reached; for strategies driven by validation.
        held_out: A dataset like ``eval_dataset``, of which every optimizer step sees a batch, in order; for
            strategies that learn from validation losses (auto_lambda).
        *args: The Trainer's own.
        **kwargs: The Trainer's own.

    Raises:
        ValueError: ``nn.DataParallel`` or a static DDP graph would be used, ``balancer`` is neither of the
            two or stands beside ``model_init``, or ``held_out`` has no items by index.
    """

    loss_is_scaled_for_ga = False

    def __init__(
        self,
        *args: Any,
        balancer: Balancer | Build,
        scores: Scores | None = None,
        held_out: Any = None,
        **kwargs: Any,
    ) -> None:
        if not callable(balancer) or isinstance(balancer, type):  # a Balancer is callable as well
            raise ValueError(
                f"balancer should be a Balancer, or a function of (model, trial) that makes one, found "
                f"{balancer!r}: pass Balancer({balancer!r}, tasks, model)."
            )
        self.trial: Any = None
        super().__init__(*args, **kwargs)
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process: start one process per GPU (torchrun), "
                "or hide all but one."
            )
        if getattr(self.args, "ddp_static_graph", False):
            raise ValueError("ddp_static_graph=True cannot be balanced: leave it off.")
        if isinstance(balancer, Balancer) and self.model_init is not None:
            raise ValueError(
                "model_init makes a new model for every run: give balancer= a function of (model, trial) "
                "that makes its Balancer."
            )
        if held_out is not None and not hasattr(held_out, "__getitem__"):
            found = type(held_out).__name__
            raise ValueError(f"held_out should be a dataset with items by index, found {found}.")
        self.balancer: Balancer | None = balancer if isinstance(balancer, Balancer) else None
        self._build: Build | None = None if isinstance(balancer, Balancer) else balancer
        self._scores = scores
        self._optimizer: torch.optim.Optimizer | None = None
        self._sums: dict[str, tuple[Any, Any]] = {}  # task -> sum of losses, items
        self._unlabelled = 0  # examples of an evaluation in batches without any label
        self._held_out = held_out
        self._batches: list[tuple[nn.Module, dict[str, Any], dict[str, Any]]] = []  # since the last step
        self.add_callback(_Steps(self))

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """As in the Trainer; remembers the trial."""
        self.trial = trial
        return super().call_model_init(trial)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """As in the Trainer; makes the balancer if there is none for this model, and attaches it."""
        optimizer = super().create_optimizer(model)
        inner = getattr(optimizer, "optimizer", optimizer)
        if inner is not self._optimizer:
            self._optimizer = inner
            if self._build is not None:
                self.balancer = self._build(cast(nn.Module, self.model), self.trial)
            cast(Balancer, self.balancer).attach(inner)
        return optimizer

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """The balancer's scalar, or in evaluation the plain sum of the losses at hand."""
        outputs = model(**inputs)
        tasks = () if self.balancer is None else self.balancer.tasks
        losses, counts = read(outputs, inputs, tasks)
        if not losses:
            self._unlabelled += 0 if model.training else find_batch_size(inputs) or 0  # type: ignore[no-untyped-call]
            loss = _nothing(outputs, model)
        elif model.training and self.balancer is not None:
            if "after_step" in self.balancer.hooks:
                before = self._batches if self.balancer.options.accumulation == "window" else []
                self._batches = [*before, (model, inputs, counts)]
            wanted = self._held_out is not None and "validate" in self.balancer.hooks
            if wanted and self.accelerator.sync_gradients:
                self._validate(model)
            loss = self.balancer(losses, counts)
            for task, value in losses.items():
                weighted = value.detach().float() * counts.get(task, 1)
                total, items = self._sums.get(task, (0.0, 0))
                self._sums[task] = (total + weighted, items + counts.get(task, 1))
        else:
            loss = torch.stack(list(losses.values())).sum()
        return (loss, outputs) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Loss over the tasks that have labels, outputs by name, and the label sets that are there."""
        inputs = self._prepare_inputs(inputs)
        labels = {name: inputs[name] for name in self.label_names if inputs.get(name) is not None}
        with torch.no_grad(), self.compute_loss_context_manager():
            if labels:
                loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
            else:
                loss, outputs = None, model(**inputs)
        if prediction_loss_only:
            return loss, None, None
        if ignore_keys is None:
            ignore_keys = getattr(getattr(model, "config", None), "keys_to_ignore_at_inference", [])
        hidden = {"loss", "losses", "counts", *ignore_keys}
        named = isinstance(outputs, Mapping)
        logits = {k: v for k, v in outputs.items() if k not in hidden} if named else outputs[1:]
        return loss, logits, labels or None

    def evaluation_loop(
        self, dataloader: Any, description: str, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any
    ) -> Any:
        """As in the Trainer; batches without any label stay out of the mean loss."""
        self._unlabelled = 0
        kwargs["metric_key_prefix"] = metric_key_prefix
        output = super().evaluation_loop(dataloader, description, *args, **kwargs)
        here = torch.tensor(float(self._unlabelled), device=self.args.device)
        without, key = float(self.accelerator.reduce(here, "sum")), f"{metric_key_prefix}_loss"
        metrics, n = cast("dict[str, float]", output.metrics), output.num_samples or 0
        if without and key in metrics:
            metrics[key] *= n / (n - without) if n > without else float("nan")
        return output

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As in the Trainer; an evaluation in training ends the balancer's epoch, if there are ``scores``."""
        metrics: dict[str, float] = super().evaluate(eval_dataset, *args, **kwargs)
        if self.is_in_train and eval_dataset is None and self._scores is not None and self.balancer:
            self.balancer.end_epoch(self._scores(metrics))
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As in the Trainer; a log of training gets the tasks' losses and weights."""
        if "loss" in logs and self.balancer is not None:
            logs = {**logs, **self._task_logs(self.balancer)}
        super().log(logs, start_time)

    def _task_logs(self, balancer: Balancer) -> dict[str, float]:
        """Mean losses since the last log, over all processes, and the last step's other figures."""
        pairs = [torch.tensor(self._sums.get(task, (0.0, 0))) for task in balancer.tasks]
        sums, items = self.accelerator.reduce(torch.stack(pairs).to(self.args.device), "sum").T.tolist()
        self._sums = {}
        logs = {
            f"loss/{task}": total / n for task, total, n in zip(balancer.tasks, sums, items, strict=True) if n
        }
        return logs | {k: float(v) for k, v in balancer.metrics().items() if not k.startswith("loss/")}

    def _follow(self) -> None:
        """Give the balancer the losses of the batch, or of the window, again after the optimizer's step."""
        assert self.balancer is not None
        batches, self._batches = self._batches, []
        if not batches:
            return
        self.balancer.after_step(
            lambda: [(self._again(model, inputs), counts) for model, inputs, counts in batches]
        )

    def _again(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Tensor]:
        assert self.balancer is not None
        with self.compute_loss_context_manager():
            return read(model(**inputs), inputs, self.balancer.tasks)[0]

    @cached_property
    def _held_out_loader(self) -> DataLoader[Any]:
        """Never iterated: a resumed run must find its place by the number of the step."""
        return self.get_eval_dataloader(self._held_out)

    def _validate(self, model: nn.Module) -> None:
        """Give the balancer the losses of this step's held-out batch, one of each process's own."""
        assert self.balancer is not None
        rows, n = cast(Any, self._held_out_loader.dataset), self.args.per_device_train_batch_size
        first = (self.state.global_step * self.args.world_size + self.args.process_index) * n
        batch = self._held_out_loader.collate_fn([rows[(first + k) % len(rows)] for k in range(n)])
        inner = self.accelerator.unwrap_model(model)
        self.balancer.validate(partial(self._again, inner, self._prepare_inputs(batch)))


def _nothing(outputs: Any, model: nn.Module) -> Tensor:
    """A zero [] on the graph of the outputs, so that DDP finds its parameters; else on the model's own."""
    parts = outputs.values() if isinstance(outputs, Mapping) else outputs
    found = parts if not isinstance(parts, Tensor) and hasattr(parts, "__iter__") else ()
    tensors = [x for x in found if isinstance(x, Tensor) and x.requires_grad]
    tensors = tensors or [p for p in model.parameters() if p.requires_grad] or list(model.parameters())
    return torch.stack([torch.nan_to_num(x.float()).sum() * 0 for x in tensors]).sum()


class _Steps(TrainerCallback):
    """What a balancer needs to be told of between batches.

    An epoch ends when the next begins: a run resumed in between does so too.
    """

    def __init__(self, trainer: MultiTaskTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer._scores is None:
            cast(Balancer, self.trainer.balancer)._reminders.fed("end_epoch")

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.trainer._scores is None and state.epoch and state.epoch == int(state.epoch):
            cast(Balancer, self.trainer.balancer).end_epoch()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.trainer._follow()
