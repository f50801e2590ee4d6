"""Every GramStrategy, one file per paper: the Gramian of the task gradients in, weights out."""

from .aligned_mtl import AlignedMTL
from .auto_lambda import AutoLambda
from .cagrad import CAGrad
from .config import ConFIG
from .dualproj import DualProj
from .encodec import EnCodec
from .epo import EPO
from .fairgrad import FairGrad
from .ferero import FERERO
from .gcs import GradientCosineSimilarity
from .gradcraft import GradCraft
from .gradnorm import GradNorm
from .gradvac import GradVac
from .imtl import IMTL
from .imtl_g import IMTLG
from .krum import Krum
from .mgda import MGDA
from .modo import MoDo
from .nash_mtl import NashMTL
from .norm_balance import NormBalance
from .ntk import NTK
from .ntkmtl import NTKMTL
from .pcd import PCD
from .pcgrad import PCGrad
from .pivrg import PIVRG
from .random_grad import RandomGradientWeighting
from .sdmgrad import SDMGrad
from .upgrad import UPGrad
from .vqgan import VQGAN

__all__ = [
    "EPO",
    "FERERO",
    "IMTL",
    "IMTLG",
    "MGDA",
    "NTK",
    "NTKMTL",
    "PCD",
    "PIVRG",
    "VQGAN",
    "AlignedMTL",
    "AutoLambda",
    "CAGrad",
    "ConFIG",
    "DualProj",
    "EnCodec",
    "FairGrad",
    "GradCraft",
    "GradNorm",
    "GradVac",
    "GradientCosineSimilarity",
    "Krum",
    "MoDo",
    "NashMTL",
    "NormBalance",
    "PCGrad",
    "RandomGradientWeighting",
    "SDMGrad",
    "UPGrad",
]
