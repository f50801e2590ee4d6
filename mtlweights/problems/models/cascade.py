"""A cascade: each task's output is read by the heads of the tasks after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..task import Task
from .crf import CRFHead
from .encoders import Encoder, States, masked_mean
from .heads import make_head
from .multitask import MultiTaskModel
from .sequences import SequenceHead

LABEL_DIM = 16  #: inputs that a head gets from each task before its own


class _Width(NamedTuple):
    token_dim: int | None
    pooled_dim: int

    def output(self, task: Task, width: int) -> nn.Module:
        return nn.Linear(width, task.n_outputs)


class CascadedModel(MultiTaskModel):
    """A shared encoder and heads in a chain: POS into NER, an intent into its slots.

    The head of a task reads the encoder's states and, of each task before it in ``order``, the expected
    embedding of its label: the class probabilities times learned vectors (Hashimoto et al., "A Joint
    Many-Task Model", EMNLP 2017, section 2.2), for a number a learned multiple of it, standardised. What is
    said of a word goes to that word, and its mean over the words to the example; what is said of an example
    goes to each of its words. We depart from the paper in that one encoder serves all tasks, and not a layer
    of it each: the heads are what is in a chain.

    End to end, the loss of a task goes back through the outputs it reads, so that the heads before are
    parameters of several tasks, like the encoder, and are balanced as such.

    Args:
        order: the names of all tasks, each once.
        detach: nothing goes back through the outputs that are read: each head learns from its own loss.

    Raises:
        ValueError: ``order`` is not the tasks in some order; a task's output is no label or number, or its
            head decodes; or the encoder has states of its own for each task.
    """

    def __init__(
        self, encoder: Encoder, tasks: Sequence[Task], order: Sequence[str], *, detach: bool = False
    ) -> None:
        known = {task.name: task for task in tasks}
        if sorted(order) != sorted(known):
            raise ValueError(f"the order of a cascade is its tasks, {', '.join(known)}, found {[*order]}.")
        if encoder.per_task:
            raise ValueError("the heads of a cascade read one state: sharing= has one for each task.")
        heads = {}
        for place, name in enumerate(order):
            more, words = place * LABEL_DIM, encoder.token_dim
            width = _Width(None if words is None else words + more, encoder.pooled_dim + more)
            heads[name] = make_head(known[name], width)  # type: ignore[arg-type]
            if isinstance(heads[name], (CRFHead, SequenceHead)):
                raise ValueError(f"the head of {name!r} decodes (crf=, a sequence): no head can read that.")
        super().__init__(encoder, tasks, heads)
        self.order, self.detach = tuple(order), detach
        self.labels = nn.ModuleList(
            nn.Linear(known[name].n_outputs, LABEL_DIM, bias=False) for name in self.order[:-1]
        )

    def read(
        self, states: Mapping[str, States], tasks: Sequence[Task], targets: Mapping[str, Tensor] | None
    ) -> dict[str, Tensor]:
        """The output of these tasks' heads; the heads before them run as well."""
        own = next(iter(states.values()))  # the same for all
        wanted, known = {task.name for task in tasks}, {task.name: task for task in self.tasks}
        outputs: dict[str, Tensor] = {}
        for place, name in enumerate(self.order):
            if wanted <= outputs.keys():
                break
            outputs[name] = self.head(known[name])(own)
            if place < len(self.labels):
                own = self._told(own, known[name], outputs[name], self.labels[place])
        return {task.name: outputs[task.name] for task in tasks}

    def _told(self, states: States, task: Task, output: Tensor, labels: nn.Module) -> States:
        """The states with what the task says beside them."""
        output = output.detach() if self.detach else output
        if task.labels:
            said = labels(torch.softmax(output, -1))
        else:
            said = labels(((output - task.mean) / task.std).unsqueeze(-1))
        tokens, mask = states.tokens, states.mask
        words: Tensor | None = None
        if tokens is not None and mask is not None:
            words = said if task.kind == "tokens" else said.unsqueeze(1).expand(-1, mask.shape[1], -1)
            words = words * mask.unsqueeze(-1)
        if words is not None and mask is not None and task.kind == "tokens":
            said = masked_mean(words, mask)
        wider = None if tokens is None or words is None else torch.cat([tokens, words], -1)
        return States(wider, mask, torch.cat([states.pooled, said], -1))
