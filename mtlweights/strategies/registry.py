"""The registry: a name, `package.module:Class`, or an entry point, to a strategy class."""

from __future__ import annotations

from ..specs import did_you_mean
from . import gram, jacobian, loss
from .base import Strategy
from .hyperparameters import shown
from .loading import FILE, from_file, from_module, registered, warn_of_shadows

STRATEGIES: dict[str, type[Strategy]] = {
    "equal": loss.EqualWeighting,
    "fixed": loss.FixedWeighting,
    "random": loss.RandomLossWeighting,
    "uw": loss.UncertaintyWeighting,
    "dwa": loss.DynamicWeightAverage,
    "scale_invariant": loss.ScaleInvariant,
    "geometric": loss.GeometricLoss,
    "lbtw": loss.LossBalancedTaskWeighting,
    "cov": loss.CoefficientOfVariation,
    "slaw": loss.ScaledLossApproximateWeighting,
    "uw_so": loss.SoftOptimalUncertainty,
    "ruw": loss.RevisedUncertainty,
    "imtl_l": loss.ImpartialLosses,
    "stch": loss.SmoothTchebycheff,
    "stch_mtl": loss.SmoothTchebycheffMTL,
    "go4align": loss.GO4Align,
    "igb": loss.ImprovableGapBalancing,
    "famo": loss.FAMO,
    "ldc": loss.LossDiscrepancyControl,
    "cosmos": loss.COSMOS,
    "pbi": loss.PenaltyBoundaryIntersection,
    "softadapt": loss.SoftAdapt,
    "relobralo": loss.ReLoBRaLo,
    "group_dro": loss.GroupDRO,
    "gradnorm": gram.GradNorm,
    "norm_balance": gram.NormBalance,
    "ntk": gram.NTK,
    "ntkmtl": gram.NTKMTL,
    "encodec": gram.EnCodec,
    "vqgan": gram.VQGAN,
    "pcgrad": gram.PCGrad,
    "mgda": gram.MGDA,
    "gradvac": gram.GradVac,
    "cagrad": gram.CAGrad,
    "imtl_g": gram.IMTLG,
    "imtl": gram.IMTL,
    "nash_mtl": gram.NashMTL,
    "fairgrad": gram.FairGrad,
    "aligned_mtl": gram.AlignedMTL,
    "upgrad": gram.UPGrad,
    "dualproj": gram.DualProj,
    "config": gram.ConFIG,
    "epo": gram.EPO,
    "ferero": gram.FERERO,
    "pcd": gram.PCD,
    "gcs": gram.GradientCosineSimilarity,
    "gradcraft": gram.GradCraft,
    "krum": gram.Krum,
    "random_grad": gram.RandomGradientWeighting,
    "modo": gram.MoDo,
    "sdmgrad": gram.SDMGrad,
    "validation": loss.ValidationShortfall,
    "dtp": loss.DynamicTaskPriority,
    "achievement": loss.AchievementLoss,
    "pivrg": gram.PIVRG,
    "auto_lambda": gram.AutoLambda,
    "db_mtl": jacobian.DualBalancing,
    "lra": jacobian.LearningRateAnnealing,
    "metabalance": jacobian.MetaBalance,
    "adatask": jacobian.AdaTask,
    "moco": jacobian.MoCo,
    "m_config": jacobian.MConFIG,
    "running_pcgrad": jacobian.RunningPCGrad,
    "excess_mtl": jacobian.ExcessMTL,
    "graddrop": jacobian.GradDrop,
    "trimmed_mean": jacobian.TrimmedMean,
    "variational": jacobian.Variational,
    "contrastive": jacobian.Contrastive,
}

#: a second name -> the first
ALIASES = {
    "si": "scale_invariant",
    "gls": "geometric",
    "awl": "ruw",
    "amtl": "achievement",
    "autobalance": "adatask",
}

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
