"""The Balancer: a strategy bound to the names of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..gradients.exchange import Exchange
from ..gradients.functions import refuse_transforms
from ..gradients.ranks import Ranks
from ..gradients.shared_parameters import Shared, Sharing
from ..gradients.switches import keep_compiled_graphs
from ..strategies import Strategy
from ..strategies.making import bind, keywords, make_strategy
from .advice import Advice
from .arguments import check_model, check_shared, task_names, warn_of_optimizer
from .calls import check_closure, check_features, check_gradient, read_losses, read_parts, read_scores
from .explain import explain
from .look import Looks
from .options import Options
from .state import closures, optimizer_state
from .state.finished import Finished
from .state.optimizer_steps import OptimizerSteps
from .state.reminders import Reminders
from .state.saved_state import check_saved
from .state.state import State
from .state.window import Window, merge
from .step import line_search
from .step.engine import Engine
from .step.features import Representation
from .step.groups import Grouped, Groups
from .step.measure import Measure
from .step.validation_rows import Validation
from .step.weights import Weigher

Closure = Callable[[], Mapping[str, Tensor]]
Parts = Callable[[], Sequence[tuple[Mapping[str, Tensor], Mapping[str, Any]]]]


class Balancer:
    """Weights the losses of a multi-task model: ``loss = balancer({"ner": ner_loss, "pos": pos_loss})``.

    The scalar behaves as any loss: ``backward()``, a GradScaler, gradient accumulation, a Trainer. Its
    value is the strategy's objective for a loss-based strategy and the plain sum for the others. With the
    model in evaluation mode, or without grad mode, it is the plain sum and no state is touched.

    A backward only proposes new balancer state; the optimizer step commits it, and a skipped step drops
    it. On a loss or gradient that is not finite the balancer neither raises nor moves: ``.grad`` comes out
    non-finite, so that a GradScaler skips the step; without a scaler, check the loss yourself.

    Args:
        strategy: A registry name, a `package.module:Class`, a `file.py:Class`, a Strategy class or an
            instance, which belongs to one balancer.
        tasks: The T task names; their order is the order of per-task hyperparameters. No set: it has none.
        model: The model. Not needed, but with it the record of what is shared is saved by name, and the
            balancer knows when the model is being evaluated.
        shared: Where the task gradients are measured: ``"auto"`` is every parameter that at least two
            tasks reach; else parameters, modules, or a predicate on a parameter's name. A task's weight
            applies to all shared parameters that the task reaches.
        gradients: How a Gramian strategy measures. ``"rows"``: one gradient per task, T passes.
            ``"gramian"``: the same Gramian without the gradients of linear layers and embeddings, which are
            formed once, weighted: T half passes, little memory; other layers as in ``"rows"``, and all in an
            accumulation window. ``"auto"``: of these two, layer by layer, the faster one. Under DDP both
            take, weight by weight, what is less to send between the processes.
            ``"features"``: at the shared representation, T passes through the heads and one through the
            trunk; another Gramian, which bounds the one over the parameters (MGDA-UB).
        features: The module whose output is that representation; or pass the tensor in every call.
        heads: What the parameters of a single task get: ``"paper"`` (what the strategy's paper says),
            ``"plain"`` (the unweighted gradient) or ``"weighted"``.
        every: Recompute the weights of a Gramian strategy every this many optimizer steps; in between a
            step costs one backward pass.
        smoothing: Share of the previous weights kept in new ones, in [0, 1); Gramian strategies only.
        normalise: A Gramian strategy weighs the gradients divided by their norms, ``"l2"``, or by their
            losses, ``"loss"``, and the direction is made of those: its length no longer follows the losses'.
            A gradient or loss of 0 is left as it is; with "loss" a negative one is refused.
        accumulation: ``"microbatch"``: every backward is weighted on its own, the state moves once per
            optimizer step. ``"window"``: the rows of all micro-batches of a step are summed by their counts
            and weighted once, as one big batch; T backward passes for every strategy.
        accumulation_steps: Micro-batches per optimizer step, for ``"window"`` in a plain loop; under
            Accelerate and DDP's ``no_sync`` the end of a window is read from them.
        groups: Parameter groups, each with a Gramian and a state of a Gramian strategy of its own:
            ``"layer"`` (the modules that own parameters), modules or parameters (a group each; of a
            parameter in several the first counts), or a function of a parameter's name (its group's name, or
            whether it is one). What is in none is one more group. ``weights`` are then means over the
            groups, also those of weighted heads, and ``metrics()`` has each group's. Needs ``model``, and
            measures all that is shared.
        process_group: The processes that train this model together; by default those of the DDP wrapper given
            as ``model``, else all. Where every process trains a model of its own, a group of that process
            alone, ``torch.distributed.new_group([rank])`` (called for all, on every rank).
        weight_lr: Learning rate of learned weights, above 0 (Adam, kept in the balancer, never in your
            optimizer); by default the strategy's, from 1e-4 (`auto_lambda`) to 0.025 (`famo`, `gradnorm`).
        seed: Of random strategies, at least 0; a draw depends on it and on the number of steps taken alone.
        **hyperparameters: The strategy's own.

    Raises:
        ValueError: an argument is not one of those listed, with what was expected.
        ImportError: the module of a `package.module:Class` cannot be imported.
    """

    def __init__(
        self,
        strategy: str | type[Strategy] | Strategy,
        tasks: Sequence[str],
        model: nn.Module | None = None,
        *,
        shared: Shared = "auto",
        gradients: str = "auto",
        features: nn.Module | None = None,
        heads: str = "paper",
        every: int = 1,
        smoothing: float = 0.0,
        normalise: str | None = None,
        accumulation: str = "microbatch",
        accumulation_steps: int | None = None,
        process_group: torch.distributed.ProcessGroup | None = None,
        weight_lr: float | None = None,
        groups: Any = None,
        seed: int = 0,
        **hyperparameters: Any,
    ) -> None:
        self.tasks = task_names(tasks)
        self.strategy = make_strategy(strategy, len(self.tasks), hyperparameters, keywords(type(self)))
        self.model, shared = check_model(model), check_shared(shared)
        apart = None if groups is None else Groups(groups, self.model)
        self.options = Options(
            gradients,
            heads,
            every,
            smoothing,
            normalise,
            accumulation,
            accumulation_steps,
            self.strategy.weight_lr if weight_lr is None else weight_lr,
            seed,
            None if apart is None else apart.names,
        )
        self.options.check(self.strategy)
        self.options.check_features(features)
        self.options.check_shared(shared)
        bind(self.strategy, self)
        self.strategy.seed = int(seed)
        self._state = State(
            self.strategy if apart is None else Grouped(self.strategy, len(apart.names)),
            self.options.weight_lr,
            None if apart is None else len(apart.names),
        )
        self._sharing = Sharing(self.tasks, self.model, shared)
        self._state.rows.gone = self._sharing.record.gone
        self._finished = Finished(self._sharing)
        self._ranks = Ranks(process_group, model)
        batches, window = self.strategy.batches, None
        if accumulation == "window" or batches > 1:
            window = Window(accumulation_steps, model, batches, len(self.tasks))
        self._validation = Validation(self.strategy, self._sharing, self._ranks)
        self._representation = Representation(features)
        weigher = Weigher(self.strategy, self._state, self.options, self.tasks, apart)
        self._steps = OptimizerSteps(self._state, window)
        parts = (weigher, self._sharing, self._ranks, window)
        measure = Measure(*parts, self._validation, self._representation, Exchange(self._ranks))
        self._engine = Engine(measure, *parts, self._steps)
        if not self._engine.one_pass:
            keep_compiled_graphs()
        self._reminders = Reminders(self.strategy)
        self._looks: Looks | None = None

    def __call__(
        self,
        losses: Mapping[str, Tensor],
        counts: Mapping[str, Any] | None = None,
        *,
        features: Tensor | None = None,
    ) -> Tensor:
        """One scalar [] from the mean losses of the tasks at hand; backward it as any loss.

        Args:
            losses: Task -> its mean loss []. A task may be missing; one whose loss has no graph, where others
                have one, is: the value counts in a plain sum, and no state moves for it.
            counts: Task -> how many items that mean is over (a number of at least 0 or a tensor []); 1 where
                not given. Ranks are averaged by count. A task whose count is the number 0 is missing.
            features: The shared representation, with its graph, for ``gradients="features"``.

        Raises:
            ValueError: an unknown task, no task, a loss that is not a floating-point scalar, none with a
                gradient, a count that is not a number of items, ``features`` without a graph or of no use,
                nothing that tells the end of an accumulation window, DDP's ``join()``, finished tasks alone:
                nothing was touched.
                Here or in the backward: a negative loss under a strategy of ``positive_losses``.
        """
        if torch.compiler.is_compiling():  # in a forward that is compiled: a graph break
            outside: Tensor = torch.compiler.disable(self._scalar)(losses, counts, features)
            return outside
        return self._scalar(losses, counts, features)

    def _scalar(
        self, losses: Mapping[str, Tensor], counts: Mapping[str, Any] | None, features: Tensor | None
    ) -> Tensor:
        found = read_losses(self.tasks, losses, counts)
        refuse_transforms(found.values)
        check_features(features, self.options.gradients)
        if not torch.is_grad_enabled() or not (self.model is None or self.model.training):
            plain = found.plain_sum()
            self._reminders.evaluating(plain)
            return plain
        if self._finished.done or self._finished.watched:
            found = self._finished.without(found, self._engine.one_pass and self._ranks.number == 1)
        found.check_moves("loss")
        self._ranks.check_join()
        if features is not None:
            self._representation.tensor = features
        if self._reminders.counts:
            self._reminders.called(self._steps.last)
        step = closures.NOW.step
        if step is not None and line_search.follows(self._engine, step):
            held = line_search.scalar(self._engine, step, found)
            if held is not None:
                return held
        return self._engine.scalar(found)

    def backward(
        self,
        losses: Mapping[str, Tensor],
        counts: Mapping[str, Any] | None = None,
        *,
        gradient: Tensor | None = None,
        features: Tensor | None = None,
    ) -> None:
        """The same as ``balancer(losses, counts).backward(gradient)``.

        ``gradient`` [] is the incoming factor, as in ``Tensor.backward``: ``scaler.scale(torch.ones(()))``
        under a GradScaler. It stays in ``.grad`` and does not change the weights.

        Raises:
            ValueError: as in a call, and where ``gradient`` is no floating-point scalar.
        """
        check_gradient(gradient)
        self(losses, counts, features=features).backward(gradient)

    def attach(self, optimizer: torch.optim.Optimizer) -> Balancer:
        """Tie the balancer to this optimizer's steps and let its state ride in the optimizer's state_dict.

        Optional: without it the balancer listens to whichever optimizer steps its parameters. Returns the
        balancer.
        """
        found = optimizer_state.unwrap(optimizer)
        warn_of_optimizer(self.strategy, found[-1])
        optimizer_state.attach(self, found)
        self._steps.attach(found)
        return self

    def end_epoch(self, validation: Mapping[str, float] | None = None) -> None:
        """Tell the strategy that an epoch ended.

        ``validation``: task -> score, higher better, 1 = target reached, 0 = untrained; tasks may be missing,
        and a score of NaN is.

        Raises:
            ValueError: an unknown task, a score that is not a number, an infinite one.
        """
        scores = None if validation is None else read_scores(self.tasks, validation)
        self._steps.resolve()
        self._reminders.epoch_ended(validation is not None)
        if "end_epoch" in self.hooks:
            self._state.strategy.end_epoch(self._state.mean_losses(), scores)

    def after_step(self, closure: Closure | Parts, counts: Mapping[str, Any] | None = None) -> None:
        """Give the strategy the same batch's losses after the optimizer step, if it wants them.

        ``closure`` returns task -> loss; it is called without grad mode, and only by strategies that need it.
        ``counts`` is as in a call. With ``accumulation="window"`` it returns the losses of all micro-batches
        of the step: a list of (task -> loss, task -> count). Tasks that took no part in the step are left
        out. Learned weights that take their gradient from these losses move at once.

        Raises:
            ValueError: no function, or what it returned is refused as in a call.
        """
        check_closure(closure)
        self._reminders.fed("after_step")
        if "after_step" not in self.hooks:
            return
        with torch.no_grad():
            losses = closure()
            if not isinstance(losses, Mapping):
                losses, counts = merge(read_parts(self.tasks, losses))
            found = read_losses(self.tasks, losses, counts)
        self._steps.resolve()
        if self._steps.last is not None:
            found = found.only(self._steps.last.present)
        if found.present:
            self._engine.after_step(found)

    def finish(self, task: str) -> None:
        """A task is done: from now on its loss is left out, its head is frozen, and the others go on.

        Frozen are the parameters that no other task has reached so far (``requires_grad`` is off, ``.grad``
        None); a loss-based strategy finds them in the next call that still has the task's loss, and on
        several processes leaves it at their having no gradient. To the strategy the task is one missing from
        every batch. Call it between two steps, under DDP on every rank, where a loss-based strategy needs
        ``find_unused_parameters=True``. It is part of ``state_dict()``, and loading freezes again.

        Raises:
            ValueError: an unknown task, the last one that is left, or a model under FSDP2.
        """
        self._steps.resolve()
        self._finished.add(task)
        self._steps.forget()

    @property
    def finished(self) -> tuple[str, ...]:
        """The tasks that are done."""
        return tuple(self._finished.names)

    @property
    def hooks(self) -> frozenset[str]:
        """Which of ``end_epoch``, ``after_step`` and ``validate`` do anything with this strategy."""
        return self.strategy.hooks()

    def validate(self, closure: Closure) -> None:
        """Give the strategy gradients of validation losses, if it wants them.

        ``closure`` returns task -> validation loss with its graph; their rows join the next Gramian. A
        strategy that looks one step ahead calls it during the next backward, with the parameters moved for
        the while; the others at once. It brings its own autocast.

        Raises:
            ValueError: no function, or what it returned is refused as in a call.
        """
        check_closure(closure)
        self._reminders.fed("validate")
        if "validate" in self.hooks:
            self._validation.give(partial(self._validation_losses, closure))

    def _validation_losses(self, closure: Closure) -> tuple[list[int], list[Tensor]]:
        found = read_losses(self.tasks, closure(), None)
        found = self._finished.without(found) if self._finished.done else found
        found.check_moves("validation loss")
        return found.present, found.values

    @property
    def weights(self) -> dict[str, Tensor]:
        """Task -> weight [] in the last step, on its device; empty where the method has no weights."""
        return {} if self._steps.last is None else self._steps.last.weights(self.tasks)

    def metrics(self) -> dict[str, Tensor]:
        """The last step as a flat dict of tensors []: ``loss/a``, ``weight/a``, ``norm/a``, ``cos/a_b``."""
        return {} if self._steps.last is None else self._steps.last.metrics(self.tasks)

    def explain(self) -> str:
        """What is shared, what belongs to which task, the passes a step takes and the memory it needs."""
        return explain(self.tasks, self._engine, self.finished)

    def advise(
        self, losses: Mapping[str, Tensor] | None = None, counts: Mapping[str, Any] | None = None
    ) -> Advice | None:
        """Look at this step's losses beside the training; without losses, what the looks so far speak for.

        For about 50 steps, before ``loss = balancer(losses)``: ``balancer.advise(losses)``, then
        ``print(balancer.advise())``. A look takes a backward pass per task, every fifth some more, and keeps
        a gradient per task; ``.grad``, the graph and the balancer's state stay as they are.

        Raises:
            ValueError: no model was given, several processes, a parameter that is stepped in the backward; no
                step was seen; or the losses are refused as in a call.
        """
        if self._looks is None:
            self._looks = Looks(self)
        if losses is None:
            return self._looks.advice()
        self._looks.look(losses, counts)
        return None

    def state_dict(self) -> dict[str, Any]:
        """All that continuing bit for bit needs: tensors and plain containers, for any torch.save."""
        self._steps.resolve()
        return self._with_names(self._sharing.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`state_dict` gave.

        Raises:
            ValueError: the state is of other tasks, another strategy or other parameter groups, or is none;
                nothing was loaded.
        """
        state = {"finished": [], **state} if isinstance(state, Mapping) else state  # of before there was any
        check_saved(state, self._with_names({}), self.strategy)
        self._state.load_state_dict(dict(state))
        self._sharing.load_state_dict(state["reach"])
        self._finished.load(state["finished"])

    def _with_names(self, reach: dict[str, list[int]]) -> dict[str, Any]:
        """The state, and the names that it goes by."""
        groups = {} if self.options.groups is None else {"groups": list(self.options.groups)}
        names = {"tasks": list(self.tasks), **groups, "finished": list(self.finished)}
        return {**names, "reach": reach, **self._state.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy has no step in flight."""
        self.__dict__.update(state)
        self._validation.clear()
        self._looks = None
