"""How unsure a model is of a slice, and of each pixel in it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_P = np.arange(256) / 255
_ENTROPY = -(_P * np.log2(np.maximum(_P, 1e-12)) + (1 - _P) * np.log2(np.maximum(1 - _P, 1e-12)))
_BYTES = np.rint(255 * _ENTROPY).astype(np.uint8)


def slice_entropy(probability: npt.NDArray[np.uint8]) -> float:
    """Return the entropy of a slice's probabilities (0-255), in bits, summed over its pixels."""
    return float(np.bincount(probability.ravel(), minlength=256) @ _ENTROPY)


def entropy_map(probability: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the entropy of each probability (0-255), of which 255 is 1 bit."""
    return _BYTES[probability]
