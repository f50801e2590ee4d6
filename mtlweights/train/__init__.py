"""Train and score a multi-task model: one thin loop on Accelerate."""

from .fitting import fit
from .history import History
from .scoring import evaluate, outputs_of, scores_of
from .settings import Settings, resolve_device

__all__ = ["History", "Settings", "evaluate", "fit", "outputs_of", "resolve_device", "scores_of"]
