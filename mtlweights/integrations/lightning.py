"""A Lightning callback for a module whose ``training_step`` returns ``balancer(losses)``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from ..balancer.balancer import Balancer

Scores = Callable[[Mapping[str, Any]], Mapping[str, float]]


class BalancerCallback(Callback):
    """Logs the balancer's metrics, ends its epochs, and tells it where a window of accumulation ends.

    Training needs none of it but the last, and that only with ``accumulation="window"`` and no
    ``accumulation_steps``: the module must then be the balancer's ``model``. Saving needs
    ``balancer.attach(optimizer)`` in ``configure_optimizers``: the state rides in the checkpoint.

    Args:
        balancer: None: the module's attribute ``balancer``.
        scores: The callback metrics -> task -> validation score, higher better, 1 = target reached; given,
            every validation ends an epoch of the balancer, else every epoch of training does.
    """

    def __init__(self, balancer: Balancer | None = None, scores: Scores | None = None) -> None:
        self.balancer, self.scores, self.epoch = balancer, scores, 0

    def state_dict(self) -> dict[str, Any]:
        """The epoch of the last batch."""
        return {"epoch": self.epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave."""
        self.epoch = state_dict["epoch"]

    def _of(self, module: LightningModule) -> Balancer:
        found = getattr(module, "balancer", None) if self.balancer is None else self.balancer
        if not isinstance(found, Balancer):
            raise ValueError(
                f"{type(module).__name__} has no attribute `balancer`: set one, or pass it to "
                "BalancerCallback."
            )
        return found

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the balancer before any work is done."""
        self._of(pl_module)._reminders.fed("end_epoch")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """End the epoch before this one's first batch; say whether the optimizer steps after this batch.

        Not in ``on_train_epoch_end``: a run resumed from a step at the end of an epoch skips it.
        """
        if self.scores is None and self.epoch < trainer.current_epoch:
            self._of(pl_module).end_epoch()
        self.epoch = trainer.current_epoch
        steps = (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or trainer.is_last_batch
        pl_module.require_backward_grad_sync = steps  # type: ignore[assignment]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the last step's figures as often as the trainer logs."""
        often = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if trainer.loggers and trainer.global_step % often == 0:
            pl_module.log_dict({k: v.float() for k, v in self._of(pl_module).metrics().items()})

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """End the balancer's epoch with the scores."""
        if self.scores is not None and not trainer.sanity_checking:
            self._of(pl_module).end_epoch(self.scores(trainer.callback_metrics))
