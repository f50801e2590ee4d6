"""Train and score a multi-task model: one thin loop on Accelerate."""

from .fitting import fit
from .history import History
from .loader import TaskLoader
from .scoring import evaluate, outputs_of, scores_of
from .settings import Settings, resolve_device

__all__ = [
    "History",
    "Settings",
    "TaskLoader",
    "evaluate",
    "fit",
    "outputs_of",
    "resolve_device",
    "scores_of",
]
