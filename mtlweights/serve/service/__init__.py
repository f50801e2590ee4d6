"""A trained model over HTTP: typed, batched, watched, limited; stateless, so that copies share the load."""

from .application import application
from .limits import Limits
from .server import serve

__all__ = ["Limits", "application", "serve"]
