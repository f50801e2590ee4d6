"""The registry: a name, `package.module:Class`, or an entry point, to a strategy class."""

from __future__ import annotations

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
from .hyperparameters import shown
from .igb import ImprovableGapBalancing
from .imtl import IMTL
from .imtl_g import IMTLG
from .imtl_l import ImpartialLosses
from .krum import Krum
from .lbtw import LossBalancedTaskWeighting
from .ldc import LossDiscrepancyControl
from .loading import FILE, did_you_mean, from_file, from_module, registered, warn_of_shadows
from .metabalance import MetaBalance
from .mgda import MGDA
from .moco import MoCo
from .modo import MoDo
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

BUILT_IN = STRATEGIES.keys() | ALIASES.keys()


def names() -> list[str]:
    """All known names but aliases: the built-in strategies, then those other packages register, sorted."""
    warn_of_shadows(BUILT_IN)
    return [*STRATEGIES, *sorted(registered(BUILT_IN))]


def get(name: str) -> type[Strategy]:
    """The class of a name or alias, a ``file.py:Class``, a ``package.module:Class`` or an entry point.

    An entry point cannot take the name of a built-in strategy: it is ignored, with one warning.

    Raises ValueError if there is no such name, file or class, or it is no usable strategy, and
    ImportError if its module cannot be imported.
    """
    if not isinstance(name, str):
        raise ValueError(f"A strategy's name should be text such as 'uw', found {shown(name)}.")
    name = ALIASES.get(name, name)
    if name in STRATEGIES:
        warn_of_shadows(BUILT_IN)
        return STRATEGIES[name]
    file = FILE.fullmatch(name)
    if file is not None:
        found = from_file(file["file"], file["name"])
        if len(found) > 1:
            classes = ", ".join(cls.__name__ for cls in found)
            raise ValueError(f"{name} holds several strategies, name one as {name}:Class: {classes}.")
        return found[0]
    if ":" in name:
        return from_module(name, name)
    others = registered(BUILT_IN)
    if name in others:
        return from_module(others[name], name)
    known = [*STRATEGIES, *sorted(others)]
    hint = did_you_mean(name, [*known, *ALIASES])
    raise ValueError(f"No strategy named {name!r}{hint}. Available: {', '.join(known)}.")
