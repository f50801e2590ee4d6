"""Weight the losses of a multi-task model with any published strategy."""

from typing import TYPE_CHECKING, Any

from . import strategies
from .balancer.balancer import Balancer

if TYPE_CHECKING:
    from .bench.tune import suggest, tune

__all__ = ["Balancer", "strategies", "suggest", "tune"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`tune` and `suggest` with Optuna, once they are asked for."""
    if name not in ("suggest", "tune"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .bench import tune as package
    except ModuleNotFoundError as error:
        if error.name != "optuna":
            raise
        raise ImportError(f'mtlweights.{name} needs Optuna: pip install "mtlweights[tune]"') from None
    return getattr(package, name)
