"""What a run's settings add to a plain step: augmented batches, adversarial views, frozen layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from .adversarial import Adversary, Attack
from .augment import Augment, Augmentation
from .freezing import Freezer, Freezing
from .settings import Settings

if TYPE_CHECKING:
    from ..problems import Problem

Forward = Callable[[Any, Any], Any]  #: from inputs and targets to the model's output


class Extras:
    """The parts of a run that its settings switch on; without them every method does nothing.

    Raises:
        ValueError: one that does not suit the model or the problem.
    """

    def __init__(self, model: nn.Module, problem: Problem, settings: Settings) -> None:
        self.tasks = {task.name: task for task in problem.tasks}
        self.augment = self.adversary = self.freezer = None
        if settings.augment is not None:
            self.augment = Augment(problem, Augmentation.parse(settings.augment))
        if settings.adversarial is not None:
            self.adversary = Adversary(model, Attack.parse(settings.adversarial))
        if settings.freeze is not None:
            self.freezer = Freezer(getattr(model, "encoder", model), Freezing.parse(settings.freeze))
        self.views = 1 if self.adversary is None else self.adversary.views
        self.place, self.kept = (0, 0), dict[int, Any]()

    def check(self, processes: int, sharded: bool) -> None:
        """Refuse what does not go with several processes.

        Raises:
            ValueError: layers that come and go under DDP, whatever looks into a sharded model.
        """
        if self.freezer is not None and processes > 1:
            raise ValueError(
                "freeze= changes what is trained, which DDP and FSDP2 must know before: use one process"
            )
        if self.adversary is not None and sharded:
            raise ValueError("adversarial= does not go with FSDP2: use DDP, or leave it out")

    def start(self, epoch: int) -> None:
        """An epoch begins."""
        if self.freezer is not None:
            self.freezer.start(epoch)

    def same(self, sampler: Any, index: int, batch: Any) -> tuple[Any, bool]:
        """The batch of this place of an epoch, drawn once for all of its views; whether it is the first."""
        if self.adversary is None:
            return batch, True
        part, view = self.place = sampler.place(index)
        if view == 0:
            self.kept[part] = batch
        return self.kept[part], view == 0

    def losses(self, batch: Any, forward: Forward) -> dict[str, Tensor]:
        """The losses of a training batch."""
        if self.adversary is None:
            return self._losses(batch, forward)
        return self.adversary.losses(*self.place, lambda: self._losses(batch, forward))

    def _losses(self, batch: Any, forward: Forward) -> dict[str, Tensor]:
        inputs, targets = batch["inputs"], batch["targets"]
        if self.augment is None or self.augment.how.way != "mixup":
            inputs = inputs if self.augment is None else self.augment.inputs(inputs)
            losses: dict[str, Tensor] = forward(inputs, targets).losses
            return losses
        inputs, others, m = self.augment.mixed(inputs)
        found = forward(inputs, targets)
        return {
            name: m * loss + (1 - m) * self.tasks[name].loss(found.outputs[name], targets[name][others])
            for name, loss in found.losses.items()
        }
