"""Every GramStrategy, one file per paper: the Gramian of the task gradients in, weights out."""

from .aligned_mtl import AlignedMTL
from .auto_lambda import AutoLambda
from .cagrad import CAGrad
from .config import ConFIG
from .dualproj import DualProj
from .epo import EPO
from .fairgrad import FairGrad
from .gradnorm import GradNorm
from .gradvac import GradVac
from .imtl import IMTL
from .imtl_g import IMTLG
from .krum import Krum
from .mgda import MGDA
from .modo import MoDo
from .nash_mtl import NashMTL
from .pcd import PCD
from .pcgrad import PCGrad
from .random_grad import RandomGradientWeighting
from .sdmgrad import SDMGrad
from .upgrad import UPGrad

__all__ = [
    "EPO",
    "IMTL",
    "IMTLG",
    "MGDA",
    "PCD",
    "AlignedMTL",
    "AutoLambda",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "FairGrad",
    "GradNorm",
    "GradVac",
    "Krum",
    "MoDo",
    "NashMTL",
    "PCGrad",
    "RandomGradientWeighting",
    "SDMGrad",
    "UPGrad",
]
