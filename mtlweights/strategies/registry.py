"""The registry: a name, `package.module:Class`, or an entry point, to a strategy class."""

from __future__ import annotations

import ast
import difflib
import pkgutil
import re
from importlib import metadata
from typing import Any

from .base import Strategy

ENTRY_POINTS = "mtlweights.strategies"

#: name -> "module:Class", imported when asked for
STRATEGIES: dict[str, str] = {
    "equal": "equal:Equal",
    "fixed": "fixed:Fixed",
    "random": "random:RandomLossWeighting",
    "uw": "uw:UncertaintyWeighting",
    "dwa": "dwa:DynamicWeightAverage",
    "gradnorm": "gradnorm:GradNorm",
    "pcgrad": "pcgrad:PCGrad",
    "mgda": "mgda:MGDA",
    "validation": "validation:ValidationShortfall",
}
