"""What a model has learnt, and how its tasks go together; `bench.report.understanding` draws it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from ..problems.models.encoders import encode
from ..problems.models.groups import group_of
from .scoring import labelled, modes_kept, to_device

if TYPE_CHECKING:
    from ..problems import Problem
    from .history import History

Rows = dict[str, dict[str, Tensor]]  #: task -> parameter -> gradient


class TaskTrace:
    """Gradients and affinities of the tasks after every epoch, on one batch that stays the same.

    For `mtlweights.train.fit`'s ``after_epoch``. The model is in evaluation mode for the while, no random
    number is drawn, and no ``.grad`` is touched: the run is the same with and without.

    Args:
        rows: training examples the batch has, the first labelled ones.
        lr: of the look-ahead.

    Attributes:
        epochs: the epochs seen.
        norms: layer -> [epochs, T], the lengths of the tasks' gradients.
        cosines: layer -> [epochs, T, T]; NaN where a task does not reach the layer.
        affinity: [epochs, T, T]. In row i and column j: 1 - L_j(after) / L_j(before), where what several
            tasks reach has taken one step of gradient descent on task i (Fifty et al., "Efficiently
            Identifying Task Groupings for Multi-Task Learning", NeurIPS 2021, eq. 1). Above 0: i helps j.
            They look ahead in every training step, we after every epoch.

    Raises:
        ValueError: a task has no label in the batch.
    """

    def __init__(self, model: nn.Module, problem: Problem, *, rows: int = 64, lr: float = 0.05) -> None:
        self.model, self.lr = model, lr
        self.tasks = [task.name for task in problem.tasks]
        self.batch = problem.collate(labelled(problem, "train")[:rows])
        if missing := [name for name in self.tasks if name not in self.batch["targets"]]:
            raise ValueError(
                f"the first {rows} examples have no label for {', '.join(missing)}: give more rows"
            )
        self.epochs: list[int] = []
        self.norms: dict[str, list[list[float]]] = {}
        self.cosines: dict[str, list[list[list[float]]]] = {}
        self.affinity: list[list[list[float]]] = []

    def __call__(self, history: History) -> None:
        """Measure the model as it is now."""
        self.epochs.append(len(history.rows))
        with modes_kept(self.model), torch.enable_grad():
            self.model.eval()
            names = {k: p for k, p in self.model.named_parameters() if p.requires_grad}
            before, rows = self._gradients(names)
            self._compare(rows)
            self.affinity.append([self._ahead(rows, task, before) for task in self.tasks])

    def _losses(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        place = next(self.model.parameters()).device
        batch = (to_device(self.batch["inputs"], place), to_device(self.batch["targets"], place))
        losses: dict[str, Tensor] = functional_call(self.model, weights, batch).losses
        return losses

    def _gradients(self, names: dict[str, Any]) -> tuple[dict[str, float], Rows]:
        losses, rows = self._losses(names), {}
        for task in self.tasks:
            found = torch.autograd.grad(losses[task], [*names.values()], retain_graph=True, allow_unused=True)
            rows[task] = {k: g for k, g in zip(names, found, strict=True) if g is not None}
        return {task: float(losses[task].detach()) for task in self.tasks}, rows

    def _compare(self, rows: Rows) -> None:
        for layer in dict.fromkeys(group_of(name) for own in rows.values() for name in own):
            own = {
                task: [g.flatten().double() for k, g in row.items() if group_of(k) == layer]
                for task, row in rows.items()
            }
            flat = [torch.cat(own[task]) if own[task] else None for task in self.tasks]
            lengths = [float("nan") if g is None else float(g.norm()) for g in flat]
            self.norms.setdefault(layer, []).append(lengths)
            self.cosines.setdefault(layer, []).append([[_cosine(a, b) for b in flat] for a in flat])

    def _ahead(self, rows: Rows, task: str, before: dict[str, float]) -> list[float]:
        """How much of each task's loss one step on this one takes away."""
        shared = {k for k in rows[task] if sum(k in row for row in rows.values()) > 1}
        weights = {k: p.detach() for k, p in self.model.named_parameters()}
        moved = {k: p - self.lr * rows[task][k] if k in shared else p for k, p in weights.items()}
        with torch.no_grad():
            after = self._losses(moved)
        return [1 - float(after[name]) / before[name] if before[name] else 0.0 for name in self.tasks]


def _cosine(a: Tensor | None, b: Tensor | None) -> float:
    if a is None or b is None or a.shape != b.shape:
        return float("nan")
    return float(a @ b / (a.norm() * b.norm()).clamp(min=1e-300))


def project(model: nn.Module, problem: Problem, split: str = "test", rows: int = 500) -> np.ndarray:
    """The encoder's states of a split's first examples on their first two principal components, [N, 2].

    With an encoder that has states of its own for each task (``sharing=``) those for the first one.
    """
    batch, first = problem.collate(problem.splits[split][:rows]), problem.tasks[0].name
    encoder: Any = model.encoder
    with modes_kept(model), torch.no_grad():
        model.eval()
        inputs = to_device(batch["inputs"], next(model.parameters()).device)
        states = encode(encoder, inputs, [first])[first].pooled.double().cpu()
    centred = states - states.mean(0)
    _, _, axes = torch.linalg.svd(centred, full_matrices=False)
    found: np.ndarray = (centred @ axes[:2].T).numpy()
    return found


def attributions(
    model: nn.Module,
    problem: Problem,
    sentence: Sequence[str],
    task: str,
    word: int | None = None,
    steps: int = 50,
) -> tuple[str, list[float]]:
    """What each word adds to the label that a task's head gives: that label, and a number a word.

    Integrated gradients (Sundararajan et al., ICML 2017) of the label's logit over the word embeddings, from
    embeddings of zero, by captum; they sum to the logit's difference between the two, up to the ``steps``.
    ``word``: the one whose label it is, for a task of words.

    Raises:
        ValueError: the task is not one of labels, ``word`` is none of the sentence, or the encoder has no
            word embedding. ImportError: captum is not installed.
    """
    try:
        from captum.attr import LayerIntegratedGradients
    except ImportError as error:
        raise ImportError("attributions need captum: pip install 'mtlweights[understand]'") from error
    own = next((found for found in problem.tasks if found.name == task), None)
    if own is None or not own.labels:
        known = ", ".join(found.name for found in problem.tasks if found.labels)
        raise ValueError(
            f"attributions are of a task with labels ({known or 'there is none'}), found {task!r}."
        )
    if own.kind == "tokens" and (word is None or not 0 <= word < len(sentence)):
        raise ValueError(f"word should be from 0 to {len(sentence) - 1}, whose label it is, found {word!r}.")
    encoder: Any = model.encoder
    if not isinstance(getattr(encoder, "words", None), nn.Embedding):
        raise ValueError(f"attributions read a BiLSTM's word embeddings, found a {type(encoder).__name__}.")
    inputs = problem.inputs([list(sentence)])
    rest = [key for key in inputs if key != "words"]

    def logits(words: Tensor, *others: Tensor) -> Tensor:
        outputs = model({"words": words, **dict(zip(rest, others, strict=True))}).outputs[task]
        found: Tensor = outputs[:, word] if own.kind == "tokens" else outputs
        return found

    with modes_kept(model):
        model.eval()
        values = [inputs[key] for key in rest]
        with torch.no_grad():
            label = int(logits(inputs["words"], *values).argmax(-1))
        found = LayerIntegratedGradients(logits, encoder.words).attribute(
            inputs["words"],
            baselines=torch.zeros_like(inputs["words"]),
            target=label,
            additional_forward_args=tuple(values),
            n_steps=steps,
        )
    return own.labels[label], found.detach().sum(-1).flatten().tolist()
