"""Every strategy by name."""

from .base import GramStrategy, JacobianStrategy, LossStrategy, Strategy
from .registry import get, names

__all__ = ["GramStrategy", "JacobianStrategy", "LossStrategy", "Strategy", "get", "names"]
