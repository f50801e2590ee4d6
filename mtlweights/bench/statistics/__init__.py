"""What a comparison may claim: intervals, verdicts, and averages across problems, from numbers alone.

``intervals`` has a mean's interval and p-value, fixed in advance or valid whenever one looks; ``verdicts``
judges several arms at once; ``across`` joins problems. Nothing here knows of runs or files.
"""

from .across import critical_difference, interquartile_mean, ranks
from .intervals import DESIGNS, Interval, anytime_t, fixed_t, seeds_needed
from .verdicts import VERDICTS, Verdict, judge

__all__ = [
    "DESIGNS",
    "VERDICTS",
    "Interval",
    "Verdict",
    "anytime_t",
    "critical_difference",
    "fixed_t",
    "interquartile_mean",
    "judge",
    "ranks",
    "seeds_needed",
]
