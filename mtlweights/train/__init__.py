"""Train and score a multi-task model: one thin loop on Accelerate."""

from .fitting import fit
from .history import History
from .scoring import evaluate
from .settings import Settings, resolve_device

__all__ = ["History", "Settings", "evaluate", "fit", "resolve_device"]
