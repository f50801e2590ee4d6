"""The three kinds of strategy. A strategy is the mathematics of one paper and nothing else.

Letters: T tasks, m <= T tasks present in this step, P shared parameters. ``present`` is the index that takes
the m tasks' rows out of anything with one row per task, as in ``self.weight[present]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .hyperparameters import is_whole

Weights = np.ndarray | tuple[np.ndarray, np.ndarray]
Index = (
    slice | np.ndarray | Tensor
)  #: of the m tasks present: ``ALL`` when none is missing, else their numbers [m]
ALL = slice(None)


class Strategy(nn.Module, ABC):
    """What every strategy shares. Subclass one of the three kinds below, not this.

    State lives in buffers and parameters made in ``__init__``, of size O(T^2), so that
    ``state_dict`` holds all of it. A strategy may change its own state freely in its method and
    hooks: the Balancer keeps the change only if the optimizer step it belongs to was taken.

    An ``nn.Parameter`` is a learned weight. The Balancer updates it with its own Adam
    (``weight_lr``), then calls :meth:`project`; it never enters the user's optimizer. A
    `LossStrategy` gets the gradient by differentiating ``combine``; a `GramStrategy` writes it to
    ``.grad`` in ``weights``. A row whose gradient is exactly 0 is left alone: no update, no momentum.
    """

    paper: ClassVar[str] = ""  #: reference and URL
    family: ClassVar[str] = ""  #: "loss", "validation", "gradient norm", "gramian" ...
    #: search space, see `strategies.space`: {"c": (0.0, 1.0)}; {} where there is nothing to tune. It holds
    #: the defaults, and may hold the Balancer's ``weight_lr``
    space: ClassVar[dict[str, Any]]
    heads: ClassVar[Literal["plain", "weighted"]] = "weighted"  #: what the paper gives the heads
    measured_at: ClassVar[Literal["shared", "last_shared", "features", "all"]] = "shared"
    needs: ClassVar[tuple[str, ...]] = ()  #: those of ``hooks()`` it cannot work without
    weight_lr: ClassVar[float] = 0.025  #: of its learned weights, for a Balancer that is not given another
    #: losses times c multiply the update by c ** degree; a hyperparameter may refine it on the instance
    scale_degree: float | None = 1
    signed_weights: ClassVar[bool] = False  #: a weight may be negative
    #: takes losses of at least 0 alone, and the Balancer refuses others; the instance may refine it
    positive_losses: bool = False
    batches: ClassVar[int] = 1  #: of a `GramStrategy`: k > 1 independent batches, their rows stacked
    #: T above which its T x T problems take longer than the step is worth, and what to use there instead
    most_tasks: ClassVar[tuple[int, str] | None] = None
    replaces_optimizer: ClassVar[bool] = False  #: its update wants plain SGD, no momentum, no Adam
    properties: ClassVar[frozenset[str]] = frozenset()  #: what it claims, of `mtlweights.testing.PROPERTIES`

    step: Tensor  #: number of committed steps

    def __init__(self, n_tasks: int) -> None:
        super().__init__()
        if not is_whole(n_tasks) or n_tasks < 1:
            raise ValueError(f"n_tasks should be an integer of at least 1, found {n_tasks!r}.")
        if self.most_tasks is not None and n_tasks > self.most_tasks[0]:
            most, instead = self.most_tasks
            raise ValueError(
                f"{type(self).__name__} takes at most {most} tasks, found {n_tasks}: solving would take "
                f"a large part of a second, or several, in every step. Use {instead}."
            )
        self.n_tasks = int(n_tasks)
        self.seed = 0
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @classmethod
    def hooks(cls) -> frozenset[str]:
        """Methods of the Balancer that reach this strategy, which overrides what they call.

        ``end_epoch`` and ``after_step`` call the method of that name; ``validate`` a `GramStrategy`'s
        ``lookahead``.
        """
        own = {"end_epoch": Strategy.end_epoch, "after_step": Strategy.after_step}
        found = {name for name, hook in own.items() if getattr(cls, name) is not hook}
        validates = issubclass(cls, GramStrategy) and cls.lookahead is not GramStrategy.lookahead
        return frozenset(found | {"validate"} if validates else found)

    def end_epoch(self, mean_losses: np.ndarray, scores: np.ndarray | None) -> None:
        """Hook. ``mean_losses`` [T]: the epoch's mean training losses, NaN for a task not seen.

        ``scores`` [T]: validation scores, 1 = target reached, 0 = untrained, NaN where not given.
        """

    def after_step(self, losses: Tensor, present: Index = ALL) -> None:
        """Hook. ``losses`` [m]: the same batch's losses after the optimizer step.

        Gradients it leaves in the parameters' ``.grad`` are applied at once.
        """

    def project(self, moved: Tensor) -> None:
        """Hook, called after the Balancer has updated this strategy's parameters.

        ``moved`` [T], bool, on their device: the tasks whose rows were updated; others must not change.
        """


class LossStrategy(Strategy):
    """Losses in, one scalar out. The weights are the scalar's gradient in the losses."""

    @abstractmethod
    def combine(self, losses: Tensor, present: Index = ALL) -> Tensor:
        """The training objective, [] from losses [m].

        ``losses`` are detached values on the training device, float32 or wider, with
        ``requires_grad``; no host read (``item``, ``if tensor``) may happen here. State of the
        tasks that are not ``present`` must not change.
        """


class GramStrategy(Strategy):
    """The Gramian of the task gradients in, one weight per task out."""

    heads: ClassVar[Literal["plain", "weighted"]] = "plain"

    @abstractmethod
    def weights(self, gram: np.ndarray, losses: np.ndarray, present: np.ndarray) -> Weights:
        """Weights [m] from ``gram`` [m, m] and ``losses`` [m], both float64 on the host and finite.

        ``present`` [m] holds the tasks' numbers, also when none is missing. May return a pair (trunk [m],
        heads [m]). Its buffers and parameters are float64 and stay on the CPU. With k = ``batches`` > 1 the
        rows are those of k batches end to end: ``gram`` [km, km], weights [km]. Where ``lookahead`` is
        overridden the rows of v validation losses follow: ``gram`` [m + v, m + v], ``losses`` [m + v],
        weights [m].
        """

    def lookahead(self, present: np.ndarray) -> np.ndarray | None:
        """Hook, overridden by a strategy that takes the gradients of ``Balancer.validate``.

        They are taken at theta - sum(c_i g_i), c [m] being what it returns; None: at theta itself.
        """
        return None


class JacobianStrategy(Strategy):
    """The task gradients themselves in, one direction out.

    State of the size of the gradients is kept by the Balancer, by parameter name. Before ``direction`` it
    puts the rows of the m tasks present in ``rows``, zeros where there is none yet; what ``direction``
    assigns there is kept once the step is taken.
    """

    heads: ClassVar[Literal["plain", "weighted"]] = "plain"
    row_state: ClassVar[tuple[str, ...]] = ()  #: names of states with a value per task and element
    tensor_state: ClassVar[tuple[str, ...]] = ()  #: names of states with a value per task and tensor
    #: name -> whether there is a row per task, or one for all: states given whole, whoever is present
    memory: ClassVar[Mapping[str, bool]] = {}

    #: name -> [m, P] of ``row_state``, [m, n] of ``tensor_state``, [T, P] or [1, P] of ``memory``
    rows: dict[str, Tensor]
    sizes: list[int]  #: elements of each of the n parameter tensors, in the order of the P columns

    @abstractmethod
    def direction(
        self, jacobian: Tensor, losses: Tensor, present: Index = ALL
    ) -> Tensor | tuple[Tensor, Tensor]:
        """The update direction [P] from ``jacobian`` [m, P] and ``losses`` [m].

        May return a pair (direction [P], weights [m]).
        """
