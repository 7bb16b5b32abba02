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


def dice(predicted: Mask, truth: Mask, *, empty: float = 1.0) -> float:
    """Dice coefficient of two masks, 2 |A n B| / (|A| + |B|).

    Salehi 2022 Eq. 1, Amer 2021 Eq. 4: ``2 TP / (2 TP + FN + FP)``.

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape
        A slice, or all slices of a patient at once (the pooled value).
    empty : float
        Value for two empty masks, of which the formula says nothing; by default they agree.

    Returns
    -------
    float
        0 to 1. One empty mask: 0.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _figure("dice", predicted, truth, empty)


def jaccard(predicted: Mask, truth: Mask, *, empty: float = 1.0) -> float:
    """Jaccard index (intersection over union), ``TP / (TP + FN + FP)``: Amer 2021 Eq. 6, El-bana 2020 Eq. 10.

    Parameters, return value and errors as for `dice`; never above it.
    """
    return _figure("jaccard", predicted, truth, empty)


def f1(predicted: Mask, truth: Mask, *, empty: float = 1.0) -> float:
    """F-score, ``2 precision sensitivity / (precision + sensitivity)``: El-bana 2020 Eq. 8.

    Written as ``TP / (TP + (FN + FP) / 2)`` (Amer 2021 Eq. 5), which is the Dice coefficient
    of the same voxels: figures of the two differ only where they are averaged over
    different things. Parameters, return value and errors as for `dice`.
    """
    return _figure("f1", predicted, truth, empty)


def sensitivity(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Share of the truth that was found (recall), ``TP / (TP + FN)``: Salehi 2022 Eq. 4.

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape
    empty : float
        Value where the truth is empty, of which the formula says nothing.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    return _figure("sensitivity", predicted, truth, empty)


def specificity(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Share of the background that was left alone, ``TN / (TN + FP)``: Salehi 2022 Eq. 5 (first).

    `empty` is the value where there is no background; otherwise as for `sensitivity`.
    """
    return _figure("specificity", predicted, truth, empty)


def precision(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Share of what was found that is true, ``TP / (TP + FP)``: Salehi 2022 Eq. 5 (second).

    `empty` is the value where nothing was found; otherwise as for `sensitivity`.
    """
    return _figure("precision", predicted, truth, empty)


def accuracy(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Share of all voxels that are right, ``(TP + TN) / (TP + TN + FP + FN)``: El-bana 2020 Eq. 3.

    `empty` is the value for masks without a voxel; otherwise as for `sensitivity`.
    """
    return _figure("accuracy", predicted, truth, empty)


def mcc(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Matthews correlation coefficient, El-bana 2020 Eq. 7, -1 to 1.

    ``(TP TN - FN FP) / sqrt((TP + FN) (TN + FP) (TP + FP) (TN + FN))``; `empty` is the value
    where one of the masks is empty or full. Otherwise as for `sensitivity`.
    """
    return _figure("mcc", predicted, truth, empty)


def mae(predicted: Mask, truth: Mask, *, empty: float = math.nan) -> float:
    """Mean absolute error of two masks in per cent of their voxels: Salehi 2022 Eq. 3, times 100.

    ``100 / (w h) sum |R0(i, j) - R(i, j)|``. The paper calls its unit mm, which a share of
    pixels cannot have. `empty` is the value for masks without a voxel; otherwise as for
    `sensitivity`.
    """
    return _figure("mae", predicted, truth, empty)


def overlaps(c: Counts) -> dict[str, float]:
    """Return all figures of this module by name, for counts (of several parts, added); NaN where 0 / 0."""
    return {name: _ratio(*parts, math.nan) for name, parts in _ratios(c).items()}


def _ratios(c: Counts) -> dict[str, tuple[float, float]]:
    margins = (c.tp + c.fn) * (c.tn + c.fp) * (c.tp + c.fp) * (c.tn + c.fn)
    size = c.tp + c.fp + c.fn + c.tn
    return {
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


def _figure(name: str, predicted: Mask, truth: Mask, empty: float) -> float:
    return _ratio(*_ratios(count(predicted, truth))[name], empty)


def _ratio(above: float, below: float, empty: float) -> float:
    return above / below if below else empty
