"""What a radiologist sees in napari, a folder for each step."""

__all__ = ["demo", "dock"]
