"""Scan in, labels out: one way from voxels to labels, for Run, Refine, the guide and every measurement."""

__all__ = ["clean", "ensemble", "guide", "labelling", "options", "refine", "slices", "volume"]
