"""Weight the losses of a multi-task model with any published strategy."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import strategies
from .balancer.balancer import Balancer

if TYPE_CHECKING:
    from .bench.tune import suggest, tune
    from .integrations.sklearn import Estimator

__all__ = ["Balancer", "Estimator", "strategies", "suggest", "tune"]
__version__ = "0.1.0"


#: name -> module that has it, the package it needs, and the extra that brings that
_LATER = {
    "Estimator": (".integrations.sklearn", "sklearn", "sklearn"),
    "suggest": (".bench.tune", "optuna", "tune"),
    "tune": (".bench.tune", "optuna", "tune"),
}


def __getattr__(name: str) -> Any:
    """What needs an extra, once it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, package, extra = _LATER[name]
    try:
        return getattr(import_module(module, __name__), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != package:
            raise
        needs = {"optuna": "Optuna", "sklearn": "scikit-learn"}[package]
        raise ImportError(f'mtlweights.{name} needs {needs}: pip install "mtlweights[{extra}]"') from None
