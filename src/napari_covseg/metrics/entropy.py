"""How unsure a model is of a slice."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_P = np.arange(256) / 255
_ENTROPY = -(_P * np.log2(np.maximum(_P, 1e-12)) + (1 - _P) * np.log2(np.maximum(1 - _P, 1e-12)))


def slice_entropy(probability: npt.NDArray[np.uint8]) -> float:
    """Return the entropy of a slice's probabilities (0-255), in bits, summed over its pixels."""
    return float(np.bincount(probability.ravel(), minlength=256) @ _ENTROPY)
