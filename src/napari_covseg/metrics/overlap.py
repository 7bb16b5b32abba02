"""How far two masks cover the same voxels: figures of the confusion matrix."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Counts:
    """The confusion matrix of two masks, in voxels; those of several parts may be added.

    Attributes
    ----------
    tp, fp, fn, tn : int
        True and false positives, false and true negatives.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)


def count(predicted: Mask, truth: Mask) -> Counts:
    """Count the voxels of the four kinds.

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {truth.shape}")
    both = int(np.count_nonzero(predicted & truth))
    found, there = int(np.count_nonzero(predicted)), int(np.count_nonzero(truth))
    return Counts(both, found - both, there - both, predicted.size - found - there + both)


def dice(predicted: Mask, truth: Mask) -> float:
    """Dice coefficient of two masks, 0 to 1; 1 for two empty masks, of which the formula says nothing.

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape
        A slice, or all slices of a patient at once (the pooled value).

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    value = overlaps(count(predicted, truth))["dice"]
    return 1.0 if math.isnan(value) else value


def overlaps(c: Counts) -> dict[str, float]:
    """Return all figures of a confusion matrix (of several parts, added) by name; NaN where 0 / 0.

    - ``dice``: ``2 TP / (2 TP + FN + FP)``, Salehi 2022 Eq. 1, Amer 2021 Eq. 4. ``f1``, El-bana 2020 Eq. 8,
      is the same of the same voxels, written as ``TP / (TP + (FN + FP) / 2)`` (Amer 2021 Eq. 5): figures of
      the two differ only where they are averaged over different things.
    - ``jaccard``: ``TP / (TP + FN + FP)``, Amer 2021 Eq. 6, El-bana 2020 Eq. 10; never above Dice.
    - ``sensitivity``: ``TP / (TP + FN)``, Salehi 2022 Eq. 4. ``specificity``: ``TN / (TN + FP)``, Salehi 2022
      Eq. 5 (first). ``precision``: ``TP / (TP + FP)``, Salehi 2022 Eq. 5 (second).
    - ``accuracy``: ``(TP + TN) / (TP + TN + FP + FN)``, El-bana 2020 Eq. 3.
    - ``mcc``: Matthews correlation coefficient, -1 to 1, El-bana 2020 Eq. 7:
      ``(TP TN - FN FP) / sqrt((TP + FN) (TN + FP) (TP + FP) (TN + FN))``.
    - ``mae``: mean absolute error in per cent of the voxels, Salehi 2022 Eq. 3, times 100:
      ``100 / (w h) sum |R0(i, j) - R(i, j)|``. The paper calls its unit mm, which a share of pixels cannot
      have.
    """
    margins = (c.tp + c.fn) * (c.tn + c.fp) * (c.tp + c.fp) * (c.tn + c.fn)
    size = c.tp + c.fp + c.fn + c.tn
    ratios: dict[str, tuple[float, float]] = {
        "dice": (2 * c.tp, 2 * c.tp + c.fn + c.fp),
        "jaccard": (c.tp, c.tp + c.fn + c.fp),
        "sensitivity": (c.tp, c.tp + c.fn),
        "specificity": (c.tn, c.tn + c.fp),
        "precision": (c.tp, c.tp + c.fp),
        "accuracy": (c.tp + c.tn, size),
        "f1": (c.tp, c.tp + 0.5 * (c.fn + c.fp)),
        "mcc": (c.tp * c.tn - c.fn * c.fp, math.sqrt(margins)),
        "mae": (100.0 * (c.fp + c.fn), size),
    }
    return {name: above / below if below else math.nan for name, (above, below) in ratios.items()}
