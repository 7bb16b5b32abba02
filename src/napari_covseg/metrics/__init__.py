"""How well masks agree and pictures are told apart, NumPy and SciPy."""

from napari_covseg.metrics.overlap import dice

__all__ = ["dice", "entropy", "overlap", "recognition", "surface"]
