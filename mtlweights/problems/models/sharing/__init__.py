"""How tasks share an encoder: the forms, by name."""

from .base import Shared
from .choice import NAMES, OPTIONS, Sharing, taken
from .layerwise import Columns, Joint
from .stack import Parallel

__all__ = ["NAMES", "OPTIONS", "Columns", "Joint", "Parallel", "Shared", "Sharing", "taken"]
