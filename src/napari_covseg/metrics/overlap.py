"""How far two masks cover the same voxels."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def dice(predicted: npt.NDArray[np.bool_], truth: npt.NDArray[np.bool_]) -> float:
    """Dice coefficient of two masks, 2 |A n B| / (|A| + |B|).

    Parameters
    ----------
    predicted, truth : ndarray of bool, same shape
        A slice, or all slices of a patient at once (the pooled value).

    Returns
    -------
    float
        0 to 1. Two empty masks agree: 1. One empty mask: 0.

    Raises
    ------
    ValueError
        If the shapes differ.
    """
    if predicted.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {predicted.shape} and {truth.shape}")
    both = np.count_nonzero(predicted & truth)
    total = np.count_nonzero(predicted) + np.count_nonzero(truth)
    return 1.0 if total == 0 else 2.0 * both / total
