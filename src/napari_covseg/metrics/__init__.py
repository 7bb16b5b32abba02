"""How well two masks agree, NumPy and SciPy."""

from napari_covseg.metrics.overlap import dice

__all__ = ["dice", "entropy", "overlap", "surface"]
