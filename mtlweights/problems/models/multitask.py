"""One encoder, a head per task."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from ..task import MISSING, Task
from .crf import CRFHead
from .encoders import Encoder, States, encode
from .heads import make_head
from .sequences import SequenceHead


class Output(NamedTuple):
    """What a `MultiTaskModel` gives."""

    outputs: dict[str, Tensor]  #: task -> the head's output
    losses: dict[str, Tensor]  #: task -> mean loss [] over its labelled items


def _module_name(task: Task) -> str:
    # PyTorch takes no dot in a module's name, nor the name of one of ModuleDict's own attributes.
    name = task.name.replace(".", "_")
    return f"{name}_" if hasattr(nn.ModuleDict, name) or name == "training" else name


class MultiTaskModel(nn.Module):
    """A shared encoder and one head per task; ``heads`` is a ModuleDict by task name.

    ``heads``: task -> module of `States`, for tasks that shall have another head than `make_head`'s.

    Raises ValueError for no task, two of one name, a head for no task.
    """

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], heads: dict[str, nn.Module] | None = None
    ) -> None:
        super().__init__()
        self.encoder, self.tasks = encoder, tuple(tasks)
        names = [task.name for task in self.tasks]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"A model expects one or more tasks of different names, found {names}.")
        if strange := set(heads or {}) - set(names):
            raise ValueError(f"Heads were given for {sorted(strange)}, but the tasks are {names}.")
        self.heads = nn.ModuleDict(
            {_module_name(t): (heads or {}).get(t.name) or make_head(t, encoder) for t in self.tasks}
        )

    def forward(self, inputs: dict[str, Any], targets: dict[str, Tensor] | None = None) -> Output:
        """Outputs, and the losses of the tasks in ``targets``.

        Every head runs when ``targets`` is None, else only those of the tasks in it. A word that
        the encoder has no state for (cut off) does not count in a loss. Of a head that decodes (a CRF, a
        decoder) the outputs are what it decodes where ``targets`` is None, else what its loss is of.
        ValueError: a target for no task.
        """
        if strange := set(targets or ()) - {task.name for task in self.tasks}:
            names = [task.name for task in self.tasks]
            raise ValueError(f"Targets were given for {sorted(strange)}, but the tasks are {names}.")
        chosen = [task for task in self.tasks if targets is None or task.name in targets]
        states = encode(self.encoder, inputs, [task.name for task in chosen])
        outputs = self.read(states, chosen, targets)
        if targets is None:
            return Output(outputs, {})
        losses = {t.name: self._loss(t, outputs[t.name], targets[t.name], states[t.name]) for t in chosen}
        return Output(outputs, losses)

    def read(
        self, states: Mapping[str, States], tasks: Sequence[Task], targets: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """The output of each of these tasks' heads on the encoder's states for it."""
        return {t.name: self._output(t, states[t.name], (targets or {}).get(t.name)) for t in tasks}

    def around(self, encoder: nn.Module) -> MultiTaskModel:
        """The same heads, of the same class, around another encoder; nothing is copied."""
        other = copy.copy(self)
        other._modules = {**self._modules, "encoder": encoder}
        return other

    def head(self, task: Task) -> nn.Module:
        """The head of a task."""
        return self.heads[_module_name(task)]

    def _output(self, task: Task, states: States, target: Tensor | None) -> Tensor:
        head = self.head(task)
        output: Tensor = head(states, target) if isinstance(head, SequenceHead) else head(states)
        return head.decode(output, states) if target is None and isinstance(head, CRFHead) else output

    def _loss(self, task: Task, output: Tensor, target: Tensor, states: States) -> Tensor:
        head = self.head(task)
        if isinstance(head, CRFHead):
            return head.loss(task, output, target, states)
        return task.loss(output, self._seen(task, target, states))

    def _seen(self, task: Task, target: Tensor, states: States) -> Tensor:
        if task.kind != "tokens" or states.mask is None:
            return target
        return target.masked_fill(~states.mask, MISSING)
