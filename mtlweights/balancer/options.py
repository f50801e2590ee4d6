"""The options of a Balancer, in plain values, and which of them go with which strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from ..specs import did_you_mean
from ..strategies import GramStrategy, LossStrategy, Strategy
from ..strategies.hyperparameters import MOST, is_number, is_whole, shown


@dataclass(frozen=True)
class Options:
    """What a Balancer is told beside its strategy; its docstring says what each option does."""

    gradients: str
    heads: str
    every: int
    smoothing: float
    normalise: str | None
    accumulation: str
    accumulation_steps: int | None
    weight_lr: float
    seed: int
    groups: tuple[str, ...] | None = None  #: their names

    def check(self, strategy: Strategy) -> None:
        """Refuse values out of range, and those that do not go with the strategy or with each other.

        Raises:
            ValueError: what was expected, what came, what to do.
        """
        checks: tuple[Callable[[Options, Strategy], None], ...]
        checks = (_check_seed, _check_heads, _check_numbers, _check_normalise, _check_gradients)
        for check in (*checks, _check_accumulation, _check_groups):
            check(self, strategy)

    def check_features(self, features: object) -> None:
        """The module at whose output gradients are measured, or None.

        Raises:
            ValueError: it is no module, or they are measured elsewhere.
        """
        if features is None:
            return
        if self.gradients != "features":
            raise ValueError(
                f"features= belongs to gradients='features', found gradients={self.gradients!r}."
            )
        if not isinstance(features, nn.Module):
            raise ValueError(f"features should be a module of the model, found {type(features).__name__}.")

    def check_shared(self, shared: object) -> None:
        """Where gradients are measured, ``"auto"`` or chosen.

        Raises:
            ValueError: it is chosen twice.
        """
        if self.groups is not None and not isinstance(shared, str):
            raise ValueError("groups= measures all that is shared, each group apart: leave shared= out.")


def _check_seed(options: Options, strategy: Strategy) -> None:
    if not (is_whole(options.seed) and 0 <= options.seed < 2**63):
        raise ValueError(f"seed should be a whole number of at least 0, found {shown(options.seed)}.")


def _check_heads(options: Options, strategy: Strategy) -> None:
    heads = options.heads
    if not (isinstance(heads, str) and heads in ("paper", "plain", "weighted")):
        raise ValueError(f"heads should be 'paper', 'plain' or 'weighted', found {shown(heads)}.")
    if heads == "weighted" and strategy.signed_weights:
        raise ValueError(
            f"heads='weighted' with {type(strategy).__name__}: its weights may be negative, so a head would "
            "ascend its own loss. Use heads='plain'."
        )


def _check_numbers(options: Options, strategy: Strategy) -> None:
    every, smoothing, weight_lr = options.every, options.smoothing, options.weight_lr
    if not (is_whole(every) and 1 <= every < MOST):
        raise ValueError(
            f"every should be a whole number of optimizer steps, at least 1, found {shown(every)}."
        )
    if not (is_number(smoothing) and 0 <= smoothing < 1):
        raise ValueError(f"smoothing should be in [0, 1), found {shown(smoothing)}.")
    if (every > 1 or smoothing) and (not isinstance(strategy, GramStrategy) or strategy.batches > 1):
        kind = {LossStrategy: "has no costly weights to save", GramStrategy: "needs its rows in every step"}
        reason = next((why for base, why in kind.items() if isinstance(strategy, base)), "gives no weights")
        raise ValueError(
            f"every= and smoothing= are for Gramian strategies; {type(strategy).__name__} {reason}."
        )
    if not (is_number(weight_lr) and weight_lr > 0):
        raise ValueError(f"weight_lr should be positive and finite, found {shown(weight_lr)}.")


def _check_normalise(options: Options, strategy: Strategy) -> None:
    normalise = options.normalise
    if normalise is None:
        return
    if not (isinstance(normalise, str) and normalise in ("l2", "loss")):
        raise ValueError(f"normalise should be None, 'l2' or 'loss', found {shown(normalise)}.")
    name = type(strategy).__name__
    if not isinstance(strategy, GramStrategy):
        kind = "looks at losses alone" if isinstance(strategy, LossStrategy) else "has a way of its own"
        raise ValueError(f"normalise= is for Gramian strategies; {name} {kind}: leave it out.")
    if strategy.batches > 1 or "validate" in strategy.hooks():
        more = "several batches" if strategy.batches > 1 else "validation gradients"
        raise ValueError(f"normalise= is for one gradient per task; {name} takes those of {more}.")


def _check_gradients(options: Options, strategy: Strategy) -> None:
    gradients = options.gradients
    known = ("auto", "rows", "features", "gramian")
    if not (isinstance(gradients, str) and gradients in known):
        raise ValueError(
            f"gradients should be one of {', '.join(known)}, found {shown(gradients)}"
            f"{did_you_mean(gradients, known)}."
        )
    if gradients in ("features", "gramian") and not isinstance(strategy, GramStrategy):
        kind = "their losses alone" if isinstance(strategy, LossStrategy) else "whole gradients"
        raise ValueError(
            f"gradients={gradients!r} is for Gramian strategies; {type(strategy).__name__} weighs tasks by "
            f"{kind}: leave gradients='auto'."
        )
    several = strategy.batches > 1 or "validate" in strategy.hooks()
    if gradients == "features" and (options.accumulation == "window" or several):
        raise ValueError(
            "gradients='features' needs the graph of the whole step at once: it goes with neither "
            "accumulation='window' nor a strategy of several batches or of validation gradients."
        )


def _check_accumulation(options: Options, strategy: Strategy) -> None:
    accumulation, steps, batches = options.accumulation, options.accumulation_steps, strategy.batches
    if not (isinstance(accumulation, str) and accumulation in ("microbatch", "window")):
        raise ValueError(f"accumulation should be 'microbatch' or 'window', found {shown(accumulation)}.")
    if steps is not None and not (is_whole(steps) and 1 <= steps < MOST):
        raise ValueError(f"accumulation_steps should be a whole number of at least 1, found {shown(steps)}.")
    if batches > 1 and "validate" in strategy.hooks():
        raise ValueError(
            f"{type(strategy).__name__} asks for {batches} batches and for validation rows: a strategy gets "
            "one or the other."
        )
    if steps is not None and steps % batches:
        raise ValueError(
            f"{type(strategy).__name__} weighs with {batches} independent batches per optimizer step: "
            f"accumulation_steps should be a multiple of {batches}, found {steps}."
        )
    if steps is not None and accumulation != "window" and batches == 1:
        raise ValueError("accumulation_steps= belongs to accumulation='window'.")
    if options.every > 1 and accumulation == "window":
        raise ValueError(
            "every= saves nothing with accumulation='window', which needs all rows: use one of them."
        )


def _check_groups(options: Options, strategy: Strategy) -> None:
    if options.groups is None:
        return
    name, why = type(strategy).__name__, ""
    if not isinstance(strategy, GramStrategy):
        why = "looks at losses alone" if isinstance(strategy, LossStrategy) else "gives one direction for all"
    elif "validate" in strategy.hooks():
        why = "takes validation gradients"
    elif any(True for _ in strategy.parameters()):
        why = "learns one weight per task"
    if why:
        raise ValueError(f"groups= is for Gramian strategies with a Gramian per group; {name} {why}.")
    if options.gradients == "features":
        raise ValueError("groups= is about parameters, gradients='features' about none: use one of them.")
    if options.every > 1:
        raise ValueError("every= saves nothing with groups=, whose weights differ: use one of them.")
