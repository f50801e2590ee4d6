"""Weight the losses of a multi-task model with any published strategy."""

from . import strategies
from .balancer.balancer import Balancer

__all__ = ["Balancer", "strategies"]
__version__ = "0.1.0"
