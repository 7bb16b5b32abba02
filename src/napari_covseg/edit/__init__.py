"""Correction tools: label arrays in, sparse edits out."""

__all__ = ["between", "edit", "grow", "hu_range", "layers", "lungs", "measure", "relabel", "shape", "snap"]
