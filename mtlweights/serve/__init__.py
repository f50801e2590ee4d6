"""A trained model as something that others run: its folder, predictions, export, compression, a service."""

from .trained import TrainedModel

__all__ = ["TrainedModel"]
