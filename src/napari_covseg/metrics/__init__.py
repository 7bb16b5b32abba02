"""How well two masks agree, NumPy and SciPy."""

from napari_covseg.metrics.figure import METRICS, Empty, Figure, Over, figure
from napari_covseg.metrics.overlap import (
    accuracy,
    dice,
    f1,
    jaccard,
    mae,
    mcc,
    precision,
    sensitivity,
    specificity,
)
from napari_covseg.metrics.surface import assd, hd95, surface_dice

__all__ = [
    "METRICS",
    "Empty",
    "Figure",
    "Over",
    "accuracy",
    "assd",
    "dice",
    "f1",
    "figure",
    "hd95",
    "jaccard",
    "mae",
    "mcc",
    "precision",
    "sensitivity",
    "specificity",
    "surface_dice",
]
