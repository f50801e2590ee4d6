"""Every JacobianStrategy, one file per paper: the task gradients themselves in, a direction out."""

from .adatask import AdaTask
from .contrastive import Contrastive
from .db_mtl import DualBalancing
from .excess_mtl import ExcessMTL
from .graddrop import GradDrop
from .lra import LearningRateAnnealing
from .m_config import MConFIG
from .metabalance import MetaBalance
from .moco import MoCo
from .running_pcgrad import RunningPCGrad
from .trimmed_mean import TrimmedMean
from .variational import Variational

__all__ = [
    "AdaTask",
    "Contrastive",
    "DualBalancing",
    "ExcessMTL",
    "GradDrop",
    "LearningRateAnnealing",
    "MConFIG",
    "MetaBalance",
    "MoCo",
    "RunningPCGrad",
    "TrimmedMean",
    "Variational",
]
