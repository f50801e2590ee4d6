"""The balancer: what joins a strategy to the task gradients of a training loop.

``step/`` is one backward (measure, weigh, write ``.grad``), ``state/`` what outlives it; ``arguments``,
``options`` and ``calls`` check what users pass, ``records`` are what a backward measures and finds.
"""

from .balancer import Balancer

__all__ = ["Balancer"]
