"""The contract suite passes what is sound, and catches each kind of fault where it is."""

import re

import numpy as np
import pytest
import torch
from torch import nn

from mtlweights.strategies import GramStrategy, JacobianStrategy, LossStrategy
from mtlweights.testing import CHECKS, PROPERTIES, check, findings
from mtlweights.testing.subject import as_subject

SIZES = (1, 2, 3)  # quick
EQUAL = frozenset({"permutation_equivariant", "linear_under_scaling"})


class Averages(LossStrategy):
    """Inverse mean losses: a sound strategy with state, from which broken ones are made."""

    family = "loss"
    space = {}  # noqa: RUF012
    scale_degree = 0
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def __init__(self, n_tasks, *, rate=0.5):
        super().__init__(n_tasks)
        self.rate = rate
        self.register_buffer("mean", torch.zeros(n_tasks))

    def combine(self, losses, present):
        old, new = self.mean[present], losses.detach().to(self.mean)
        self.mean[present] = torch.where(old > 0, old + self.rate * (new - old), new)
        mean = self.mean[present]
        return (losses / torch.where(mean > 0, mean, 1.0)).sum()


class Learned(GramStrategy):
    """Weights that grow where the gradient is short, by a learned parameter."""

    family = "gradient norm"
    space = {}  # noqa: RUF012
    properties = EQUAL

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.log_weight = nn.Parameter(torch.zeros(n_tasks, dtype=torch.float64))

    def weights(self, gram, losses, present):
        norms = np.sqrt(np.diag(gram))
        gradient = np.zeros(self.n_tasks)
        gradient[present] = np.sign(norms - norms.mean()) * norms
        self.log_weight.grad = torch.from_numpy(gradient)
        return np.exp(self.log_weight.detach().numpy()[present])


class Stochastic(GramStrategy):
    """Two batches: the weights of the first one's gradients, from the second's."""

    family = "stochastic"
    space = {}  # noqa: RUF012
    batches = 2
    scale_degree = 0
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def weights(self, gram, losses, present):
        m = len(losses)
        norms = np.sqrt(np.diag(gram))[m:]
        first = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        return np.append(first, np.zeros(m))


class LooksAhead(GramStrategy):
    """Weights by how much of the validation losses' gradients each gradient has."""

    family = "validation"
    space = {}  # noqa: RUF012
    needs = ("validate",)
    properties = EQUAL

    def lookahead(self, present):
        return np.full(len(present), 0.1)

    def weights(self, gram, losses, present):
        m = len(present)
        assert gram.shape == (len(losses), len(losses))
        along = np.maximum(gram[:m, m:].sum(1), 0.0)
        return 1 + along / along.max() if along.any() else np.ones(m)


class Momentum(JacobianStrategy):
    """The sum of every task's averaged gradient; rows of state."""

    family = "memory"
    space = {}  # noqa: RUF012
    properties = EQUAL
    row_state = ("average",)
    tensor_state = ("count",)

    def direction(self, jacobian, losses, present):
        assert sum(self.sizes) == jacobian.shape[1]
        self.rows["average"] = 0.9 * self.rows["average"] + jacobian
        self.rows["count"] = self.rows["count"] + 1
        return self.rows["average"].sum(0), torch.ones(len(jacobian))


class ReplacesABuffer(Learned):
    """Assigns a new tensor to its buffer, which is as good as changing it in place."""

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.register_buffer("count", torch.ones((), dtype=torch.float64))

    def weights(self, gram, losses, present):
        self.count = self.count + 1
        return super().weights(gram, losses, present) * float(self.count)


@pytest.mark.parametrize("strategy", [Averages, Learned, ReplacesABuffer, Stochastic, LooksAhead, Momentum])
@pytest.mark.parametrize("name", CHECKS)
def test_a_sound_strategy_of_each_kind_passes(strategy, name):
    check(name, strategy, sizes=SIZES)


# broken ones ----------------------------------------------------------------------------------------------

BROKEN = []


def broken(**fails):
    """Mark a strategy with the checks that it fails, and what each says."""

    def add(cls):
        cls.__doc__ = "A broken strategy."
        BROKEN.append((cls, fails))
        return cls

    return add


@broken(inputs_unchanged="ChangesItsLosses changed its input 'losses' in place")
class ChangesItsLosses(Averages):
    def combine(self, losses, present):
        value = super().combine(losses, present)
        losses.data.mul_(2)
        return value


@broken(inputs_unchanged="ChangesItsGramian changed its input 'gram' in place")
class ChangesItsGramian(Learned):
    def weights(self, gram, losses, present):
        out = super().weights(gram, losses, present)
        gram *= 2
        return out


@broken(inputs_unchanged="a hook changed its input 'mean_losses' in place")
class ChangesTheEpochsLosses(Averages):
    def end_epoch(self, mean_losses, scores):
        mean_losses /= 2


@broken(
    inputs_unchanged="ChangesItsRows changed its input 'average' in place",
    repeatable="asked twice it answers differently",
    skipped_step="with some",
)
class ChangesItsRows(Momentum):
    scale_degree = None
    properties = frozenset()

    def direction(self, jacobian, losses, present):
        self.rows["average"].mul_(0.9).add_(jacobian)
        return self.rows["average"].sum(0)


@broken(finite="all gradients zero, 1 tasks: the update is not finite")
class DividesByZero(Learned):
    scale_degree = 0
    properties = frozenset({"permutation_equivariant", "loss_scale_invariant"})

    def weights(self, gram, losses, present):
        super().weights(gram, losses, present)
        with np.errstate(all="ignore"):
            return 1 / np.sqrt(np.diag(gram))


@broken(
    finite="all gradients zero and all losses zero, 1 tasks: raised ValueError: losses should be positive"
)
class RefusesZeroLosses(Learned):
    def weights(self, gram, losses, present):
        if not losses.any():
            raise ValueError("losses should be positive")
        return super().weights(gram, losses, present)


@broken(
    repeatable="asked twice it answers differently",
    state_in_buffers="attribute 'rng' changed in a step, but no state_dict holds it",
    skipped_step="with some",
    resume="resumed",
)
class ConsumesItsStream(Learned):
    scale_degree = None
    properties = frozenset()

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.rng = np.random.default_rng(0)

    def weights(self, gram, losses, present):
        draws = self.rng.random(self.n_tasks)
        return draws[present]


@broken(resume="is .* uninterrupted, .* resumed")
class LosesABuffer(Averages):
    def __init__(self, n_tasks, *, rate=0.5):
        super().__init__(n_tasks, rate=rate)
        self.register_buffer("mean", torch.zeros(n_tasks), persistent=False)


@broken(absent_tasks="present .*: state 'mean' of the absent task 0 moved")
class MovesAbsentTasks(Averages):
    def combine(self, losses, present):
        self.mean.mul_(0.9)
        return super().combine(losses, present)


@broken(absent_tasks="state 'log_weight' of the absent task 0 moved")
class MovesAbsentLearnedWeights(Learned):
    @torch.no_grad()
    def project(self, moved):
        self.log_weight -= self.log_weight.mean()


@broken(scale_degree="scale_degree = 0, but: rank 1, .*with losses times 1e-06 d differs from d . 1e-06.0")
class AbsoluteEpsilon(Learned):
    scale_degree = 0
    properties = frozenset({"permutation_equivariant"})

    def weights(self, gram, losses, present):
        super().weights(gram, losses, present)
        return 1 / np.sqrt(np.diag(gram) + 1e-8)


@broken(linear_under_scaling="UndeclaredProperty is linear_under_scaling in all cases, and should say so")
class UndeclaredProperty(Learned):
    properties = frozenset({"permutation_equivariant"})


@broken(
    non_conflicting="FalseClaim declares non_conflicting, but: rank 2, .* the cosine of d and the gradient of"
)
class FalseClaim(Learned):
    properties = EQUAL | {"non_conflicting"}


@broken(results="weights should return an ndarray of shape .1., found shape .1, 1.")
class WrongShape(Learned):
    def weights(self, gram, losses, present):
        return super().weights(gram, losses, present)[:, None]


@broken(results="weights should return an ndarray of shape .1., found list")
class NoArray(Learned):
    def weights(self, gram, losses, present):
        return list(super().weights(gram, losses, present))


@broken(results="combine should return a tensor of shape .., found shape .1.")
class NoScalar(Averages):
    def combine(self, losses, present):
        return super().combine(losses, present)[None]


@broken(no_host_read="combine reads a value on the host .item, float")
class ReadsTheHost(Averages):
    def combine(self, losses, present):
        value = super().combine(losses, present)
        return value if losses.sum().item() > 0 else value * 0 + losses.sum() * 0


@broken(
    repeatable="asked twice it answers differently",
    state_in_buffers="attribute 'before' changed in a step, but no state_dict holds it: make it a buffer",
    skipped_step="with some",
    resume="resumed",
)
class RowsInAnAttribute(Momentum):
    scale_degree = None
    properties = frozenset()
    row_state = ()

    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.before = {}

    def direction(self, jacobian, losses, present):
        names = np.arange(self.n_tasks)[present].tolist()
        for i, row in zip(names, jacobian, strict=True):
            old = self.before.get(i, row * 0)
            self.before[i] = row + 0.9 * (old if old.shape == row.shape else row * 0)
        self.rows["count"] = self.rows["count"] + 1
        return sum(self.before[i] for i in names)


@broken(signed_weights="a weight is negative: .*; set signed_weights = True")
class UndeclaredSign(Learned):
    properties = frozenset({"permutation_equivariant"})

    def weights(self, gram, losses, present):
        super().weights(gram, losses, present)
        return gram.sum(0) / max(np.trace(gram), 1e-300)


@broken(order_of_present="T = 3: present = .2 0. and .0 2., with the same rows, give another update")
class ForgetsPresent(Averages):
    properties = frozenset({"linear_under_scaling"})
    scale_degree = 1

    def __init__(self, n_tasks, *, rate=0.5):
        super().__init__(n_tasks, rate=rate)
        self.register_buffer("preference", torch.arange(1.0, n_tasks + 1))

    def combine(self, losses, present):
        return (self.preference[: len(losses)] * losses).sum()


@broken(class_attributes="space holds 'alpha', known here: rate")
class SearchesWhatIsNot(Averages):
    space = {"alpha": (0.0, 1.0)}  # noqa: RUF012


@broken(class_attributes="properties holds 'nonconflicting', known here: non_conflicting, ")
class UnknownProperty(Averages):
    properties = frozenset({"nonconflicting"})


@broken(class_attributes="hyperparameters should be keyword-only .*: rate")
class PositionalArgument(Averages):
    def __init__(self, n_tasks, rate=0.5):
        super().__init__(n_tasks, rate=rate)


@broken(construction="NotForOneTask.1. raised ZeroDivisionError: .*other numbers of tasks: --tasks")
class NotForOneTask(Averages):
    def __init__(self, n_tasks):
        super().__init__(n_tasks)
        self.share = 1 / (n_tasks - 1)


@pytest.mark.parametrize(("strategy", "fails"), BROKEN, ids=lambda x: getattr(x, "__name__", ""))
def test_a_broken_strategy_fails_where_it_is_broken(strategy, fails):
    found = {name: message for name, message in findings(strategy, sizes=SIZES) if message}
    assert found.keys() == fails.keys(), found
    for name, pattern in fails.items():
        assert re.search(pattern, found[name]), found[name]
        assert len(found[name]) < 400 and "\n" not in found[name]


def test_properties_are_told_apart():
    """The table of the invariances, for methods whose answers are known."""
    known = {
        "mgda": "non_conflicting permutation_equivariant zero_at_stationary",
        "upgrad": "non_conflicting permutation_equivariant linear_under_scaling",
        "nash_mtl": "non_conflicting permutation_equivariant loss_scale_invariant",
        "cagrad": "permutation_equivariant",
        "pcgrad": "linear_under_scaling",
    }
    for name, properties in known.items():
        subject = as_subject(name).small()
        found = {key for key, examples in PROPERTIES.items() if next(examples(subject), None) is None}
        assert found == set(properties.split()), name
