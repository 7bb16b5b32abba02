"""The networks, a module for each paper; `build` makes one by its name."""

__all__ = ["blocks", "build", "catalogue", "classifier", "efficientnet", "size"]
