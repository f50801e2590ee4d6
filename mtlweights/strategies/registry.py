"""The registry: a name, `package.module:Class`, or an entry point, to a strategy class."""

from __future__ import annotations

import difflib
import inspect
import pkgutil
from importlib import metadata

from .achievement import AchievementLoss
from .adatask import AdaTask
from .aligned_mtl import AlignedMTL
from .auto_lambda import AutoLambda
from .base import Strategy
from .cagrad import CAGrad
from .config import ConFIG
from .contrastive import Contrastive
from .cosmos import COSMOS
from .cov import CoefficientOfVariation
from .db_mtl import DualBalancing
from .dtp import DynamicTaskPriority
from .dualproj import DualProj
from .dwa import DynamicWeightAverage
from .epo import EPO
from .equal import EqualWeighting
from .excess_mtl import ExcessMTL
from .fairgrad import FairGrad
from .famo import FAMO
from .fixed import FixedWeighting
from .geometric import GeometricLoss
from .go4align import GO4Align
from .graddrop import GradDrop
from .gradnorm import GradNorm
from .gradvac import GradVac
from .igb import ImprovableGapBalancing
from .imtl import IMTL
from .imtl_g import IMTLG
from .imtl_l import ImpartialLosses
from .krum import Krum
from .lbtw import LossBalancedTaskWeighting
from .ldc import LossDiscrepancyControl
from .metabalance import MetaBalance
from .mgda import MGDA
from .moco import MoCo
from .modo import MoDo
from .named import in_file, load_module, split_file
from .nash_mtl import NashMTL
from .pbi import PenaltyBoundaryIntersection
from .pcd import PCD
from .pcgrad import PCGrad
from .random import RandomLossWeighting
from .random_grad import RandomGradientWeighting
from .ruw import RevisedUncertainty
from .scale_invariant import ScaleInvariant
from .sdmgrad import SDMGrad
from .slaw import ScaledLossApproximateWeighting
from .stch import SmoothTchebycheff
from .stch_mtl import SmoothTchebycheffMTL
from .trimmed_mean import TrimmedMean
from .upgrad import UPGrad
from .uw import UncertaintyWeighting
from .uw_so import SoftOptimalUncertainty
from .validation import ValidationShortfall
from .variational import Variational

ENTRY_POINTS = "mtlweights.strategies"

STRATEGIES: dict[str, type[Strategy]] = {
    "equal": EqualWeighting,
    "fixed": FixedWeighting,
    "random": RandomLossWeighting,
    "uw": UncertaintyWeighting,
    "dwa": DynamicWeightAverage,
    "scale_invariant": ScaleInvariant,
    "geometric": GeometricLoss,
    "lbtw": LossBalancedTaskWeighting,
    "cov": CoefficientOfVariation,
    "slaw": ScaledLossApproximateWeighting,
    "uw_so": SoftOptimalUncertainty,
    "ruw": RevisedUncertainty,
    "imtl_l": ImpartialLosses,
    "stch": SmoothTchebycheff,
    "stch_mtl": SmoothTchebycheffMTL,
    "go4align": GO4Align,
    "igb": ImprovableGapBalancing,
    "famo": FAMO,
    "ldc": LossDiscrepancyControl,
    "cosmos": COSMOS,
    "pbi": PenaltyBoundaryIntersection,
    "gradnorm": GradNorm,
    "pcgrad": PCGrad,
    "mgda": MGDA,
    "gradvac": GradVac,
    "cagrad": CAGrad,
    "imtl_g": IMTLG,
    "imtl": IMTL,
    "nash_mtl": NashMTL,
    "fairgrad": FairGrad,
    "aligned_mtl": AlignedMTL,
    "upgrad": UPGrad,
    "dualproj": DualProj,
    "config": ConFIG,
    "epo": EPO,
    "pcd": PCD,
    "krum": Krum,
    "random_grad": RandomGradientWeighting,
    "modo": MoDo,
    "sdmgrad": SDMGrad,
    "validation": ValidationShortfall,
    "dtp": DynamicTaskPriority,
    "achievement": AchievementLoss,
    "auto_lambda": AutoLambda,
    "db_mtl": DualBalancing,
    "metabalance": MetaBalance,
    "adatask": AdaTask,
    "moco": MoCo,
    "excess_mtl": ExcessMTL,
    "graddrop": GradDrop,
    "trimmed_mean": TrimmedMean,
    "variational": Variational,
    "contrastive": Contrastive,
}

#: a second name -> the first
ALIASES = {"si": "scale_invariant", "gls": "geometric", "awl": "ruw", "amtl": "achievement"}


def names() -> list[str]:
    """All known names but aliases: the built-in strategies, then those other packages register, sorted."""
    return [*STRATEGIES, *sorted(_entry_points().keys() - STRATEGIES.keys() - ALIASES.keys())]


def get(name: str) -> type[Strategy]:
    """The strategy class of a registry name or alias, an entry point, or one of the user's own: see below.

    ``package.module:Class`` (the working folder counts) and ``path/file.py:Class`` run that module; a file
    with one strategy needs no class.

    Raises ValueError if there is no such name or class, or it is no usable strategy, ImportError if its
    module cannot be imported, and OSError if the file cannot be read.
    """
    name = ALIASES.get(name, name)
    if name in STRATEGIES:
        return STRATEGIES[name]
    if file := split_file(name):
        return _only(in_file(*file), name)
    if ":" in name:
        return _load(name, name)
    entry_points = _entry_points()
    if name in entry_points:
        return _load(entry_points[name], name)
    hint = _did_you_mean(name, [*names(), *ALIASES])
    raise ValueError(f"No strategy named {name!r}{hint}. Available: {', '.join(names())}.")


def _entry_points() -> dict[str, str]:
    return {point.name: point.value for point in metadata.entry_points(group=ENTRY_POINTS)}


def _only(classes: list[type[Strategy]], name: str) -> type[Strategy]:
    if len(classes) > 1:
        known = ", ".join(cls.__name__ for cls in classes)
        raise ValueError(f"{name} holds several strategies, name one as {name}:Class: {known}.")
    return classes[0]


def _load(path: str, name: str) -> type[Strategy]:
    module_name, _, class_name = path.partition(":")
    module = load_module(module_name, name)
    try:
        found = pkgutil.resolve_name(path)
    except (AttributeError, ValueError) as error:
        classes = [key for key, value in vars(module).items() if _is_strategy(value)]
        hint = _did_you_mean(class_name, classes)
        raise ValueError(f"No class {class_name!r} in module {module_name!r}{hint}.") from error
    if not _is_strategy(found):
        raise ValueError(
            f"{path!r} should be a class with all methods of LossStrategy, GramStrategy or "
            f"JacobianStrategy, found {found!r}."
        )
    return found  # type: ignore[no-any-return]


def _is_strategy(value: object) -> bool:
    return inspect.isclass(value) and issubclass(value, Strategy) and not inspect.isabstract(value)


def _did_you_mean(name: str, candidates: list[str]) -> str:
    close = difflib.get_close_matches(name, candidates, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
