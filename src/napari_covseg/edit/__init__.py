"""Correction tools: label arrays in, sparse edits out."""

from napari_covseg.edit.edit import Edit, Protection
from napari_covseg.edit.hu_range import PRESETS, HuRange

__all__ = ["PRESETS", "Edit", "HuRange", "Protection"]
