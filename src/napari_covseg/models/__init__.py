"""A model is one file: network, preparation, label names, weights and card; and the forward pass."""

__all__ = ["card", "catalogue", "export", "file", "forward", "installed", "preparation"]
