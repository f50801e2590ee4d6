"""Every LossStrategy, one file per paper: losses in, one scalar out."""

from .achievement import AchievementLoss
from .cosmos import COSMOS
from .cov import CoefficientOfVariation
from .dtp import DynamicTaskPriority
from .dwa import DynamicWeightAverage
from .equal import EqualWeighting
from .famo import FAMO
from .fixed import FixedWeighting
from .geometric import GeometricLoss
from .go4align import GO4Align
from .group_dro import GroupDRO
from .igb import ImprovableGapBalancing
from .imtl_l import ImpartialLosses
from .lbtw import LossBalancedTaskWeighting
from .ldc import LossDiscrepancyControl
from .pbi import PenaltyBoundaryIntersection
from .random import RandomLossWeighting
from .relobralo import ReLoBRaLo
from .ruw import RevisedUncertainty
from .scale_invariant import ScaleInvariant
from .slaw import ScaledLossApproximateWeighting
from .softadapt import SoftAdapt
from .stch import SmoothTchebycheff
from .stch_mtl import SmoothTchebycheffMTL
from .uw import UncertaintyWeighting
from .uw_so import SoftOptimalUncertainty
from .validation import ValidationShortfall

__all__ = [
    "COSMOS",
    "FAMO",
    "AchievementLoss",
    "CoefficientOfVariation",
    "DynamicTaskPriority",
    "DynamicWeightAverage",
    "EqualWeighting",
    "FixedWeighting",
    "GO4Align",
    "GeometricLoss",
    "GroupDRO",
    "ImpartialLosses",
    "ImprovableGapBalancing",
    "LossBalancedTaskWeighting",
    "LossDiscrepancyControl",
    "PenaltyBoundaryIntersection",
    "RandomLossWeighting",
    "ReLoBRaLo",
    "RevisedUncertainty",
    "ScaleInvariant",
    "ScaledLossApproximateWeighting",
    "SmoothTchebycheff",
    "SmoothTchebycheffMTL",
    "SoftAdapt",
    "SoftOptimalUncertainty",
    "UncertaintyWeighting",
    "ValidationShortfall",
]
