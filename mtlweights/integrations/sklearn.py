"""A scikit-learn estimator for tables with several targets; ``mtlweights.Estimator`` is it.

Needs scikit-learn: ``pip install "mtlweights[sklearn]"``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor, nn

from ..balancer.balancer import Balancer

KINDS = ("regression", "classification")


class Estimator(MultiOutputMixin, RegressorMixin, BaseEstimator):  # type: ignore[misc]
    """A multi-layer perceptron with a head for every column of y, its losses weighted by a strategy.

    Inputs and numbers to predict are standardised on the data given to ``fit``; a column of classes is
    predicted by cross-entropy. Adam, batches in random order, no early stopping.

    Args:
        strategy: a name, class or instance as in ``Balancer``; one that needs validation losses is refused.
        kinds: of each column of y, "regression" or "classification"; None: all are regressions.
        hidden: units of each shared layer.
        epochs, batch_size, lr: of Adam; the rate falls to 0 along a half cosine.
        options: hyperparameters of the strategy and arguments of ``Balancer``, as a dict.
        random_state: a seed or a generator, as in scikit-learn.

    Attributes:
        model_: the trained network; ``balancer_``: its Balancer, with the last weights.
        classes_: of each column the classes, None for a regression.
        n_features_in_, feature_names_in_: as in scikit-learn; ``n_iter_``: epochs that were run.

    Raises ValueError in ``fit``: another number of kinds than columns, unknown kinds, numbers out of range.
    """

    def __init__(
        self,
        strategy: Any = "equal",
        *,
        kinds: Sequence[str] | None = None,
        hidden: Sequence[int] = (64, 64),
        epochs: int = 60,
        batch_size: int = 32,
        lr: float = 1e-2,
        options: dict[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.strategy = strategy
        self.kinds = kinds
        self.hidden = hidden
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.options = options
        self.random_state = random_state

    def fit(self, X: Any, y: Any) -> Estimator:
        """Train on X [n, features] and y [n, T], or [n] for one target."""
        X, y = validate_data(self, X, y, multi_output=True, dtype=np.float32)
        self._flat, columns = y.ndim == 1, y.reshape(len(y), -1)
        self._check(columns.shape[1])
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        self._shift, self._scale = X.mean(0), _deviation(X)
        self._learn_targets(columns)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._train(self._inputs(X), self._targets(columns), seed)
        return self

    def predict(self, X: Any) -> np.ndarray:
        """Numbers and classes [n, T], or [n] where ``fit`` had one column; of mixed kinds as objects."""
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        self.model_.eval()
        with torch.no_grad():
            outputs = self.model_(self._inputs(X))
        columns = [self._answer(i, output.numpy()) for i, output in enumerate(outputs)]
        if self._flat:
            return columns[0]
        mixed = len({column.dtype.kind for column in columns}) > 1
        return np.column_stack([c.astype(object) for c in columns] if mixed else columns)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The mean over the columns of R squared, or of the accuracy for classes."""
        found = self.predict(X).reshape(len(X), -1)
        y = np.asarray(y).reshape(len(found), -1)
        scores = []
        for i, classes in enumerate(self.classes_):
            measure, kind = (r2_score, np.float64) if classes is None else (accuracy_score, classes.dtype)
            scores.append(
                measure(y[:, i].astype(kind), found[:, i].astype(kind), sample_weight=sample_weight)
            )
        return float(np.mean(scores))

    def _check(self, n_tasks: int) -> None:
        kinds = ["regression"] * n_tasks if self.kinds is None else list(self.kinds)
        if len(kinds) != n_tasks or set(kinds) - set(KINDS):
            raise ValueError(f"kinds should be {n_tasks} of {', '.join(KINDS)}, found {self.kinds!r}.")
        for name in ("epochs", "batch_size"):
            if not isinstance(value := getattr(self, name), (int, np.integer)) or value < 1:
                raise ValueError(f"{name} should be a whole number of at least 1, found {value!r}.")
        if not 0 < self.lr < math.inf:
            raise ValueError(f"lr should be a number above 0, found {self.lr!r}.")
        self._kinds = kinds

    def _learn_targets(self, columns: np.ndarray) -> None:
        """Classes of each column, or its mean and deviation."""
        self.classes_: list[np.ndarray | None] = []
        self._units: list[tuple[float, float]] = []
        for kind, column in zip(self._kinds, columns.T, strict=True):
            if kind == "classification":
                self.classes_.append(np.unique(column))
                self._units.append((0.0, 1.0))
            else:
                numbers = column.astype(np.float64)
                self.classes_.append(None)
                self._units.append((float(numbers.mean()), float(_deviation(numbers))))

    def _inputs(self, X: np.ndarray) -> Tensor:
        return torch.from_numpy(((X - self._shift) / self._scale).astype(np.float32))

    def _targets(self, columns: np.ndarray) -> list[Tensor]:
        found = []
        for classes, (mean, size), column in zip(self.classes_, self._units, columns.T, strict=True):
            if classes is None:
                found.append(torch.from_numpy(((column.astype(np.float64) - mean) / size).astype(np.float32)))
            else:
                found.append(torch.from_numpy(np.searchsorted(classes, column)))
        return found

    def _answer(self, i: int, output: np.ndarray) -> np.ndarray:
        classes, (mean, size) = self.classes_[i], self._units[i]
        if classes is None:
            return np.asarray(output[:, 0].astype(np.float64) * size + mean)
        return np.asarray(classes[output.argmax(1)])

    def _train(self, inputs: Tensor, targets: list[Tensor], seed: int) -> None:
        tasks = [f"y{i}" for i in range(len(targets))]
        self.model_ = _Perceptron(inputs.shape[1], self.hidden, [_width(c) for c in self.classes_])
        self.balancer_ = Balancer(self.strategy, tasks, self.model_, **{"seed": seed, **(self.options or {})})
        if "validate" in self.balancer_.strategy.needs:
            raise ValueError(f"strategy {self.strategy!r} needs validation losses, which fit does not have.")
        optimizer = torch.optim.Adam(self.model_.parameters(), lr=self.lr)
        self.balancer_.attach(optimizer)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.epochs)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(inputs)).split(self.batch_size):
                part = [target[rows] for target in targets]
                losses = dict(zip(tasks, self.model_.losses(inputs[rows], part), strict=True))
                optimizer.zero_grad()
                self.balancer_(losses).backward()
                optimizer.step()
                self.balancer_.after_step(
                    lambda rows=rows, part=part: dict(
                        zip(tasks, self.model_.losses(inputs[rows], part), strict=True)
                    )
                )
            self.balancer_.end_epoch()
            schedule.step()
        self.n_iter_ = self.epochs


class _Perceptron(nn.Module):
    """Shared layers, then a linear head per target."""

    def __init__(self, n_inputs: int, hidden: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        sizes = [n_inputs, *hidden]
        layers = [nn.Sequential(nn.Linear(a, b), nn.ReLU()) for a, b in pairwise(sizes)]
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Linear(sizes[-1], width) for width in widths)

    def forward(self, inputs: Tensor) -> list[Tensor]:
        states = self.trunk(inputs)
        return [head(states) for head in self.heads]

    def losses(self, inputs: Tensor, targets: Sequence[Tensor]) -> list[Tensor]:
        """Each target's mean loss []."""
        outputs = zip(self(inputs), targets, strict=True)
        return [
            nn.functional.mse_loss(output[:, 0], target)
            if target.is_floating_point()
            else nn.functional.cross_entropy(output, target)
            for output, target in outputs
        ]


def _width(classes: np.ndarray | None) -> int:
    return 1 if classes is None else len(classes)


def _deviation(values: np.ndarray) -> Any:
    """Standard deviation along the rows; 1 where there is none."""
    found = values.std(0)
    return np.where(found > 0, found, 1.0)
