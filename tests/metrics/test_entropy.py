"""Entropy against its formula, in bits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from napari_covseg.metrics.entropy import entropy_map, slice_entropy


def test_by_the_formula() -> None:
    bits = [0.0]  # of 0 / 255, where 0 log 0 is 0
    for p in (64 / 255, 127 / 255):
        bits.append(-p * math.log2(p) - (1 - p) * math.log2(1 - p))
    slice_ = np.array([[0, 64], [127, 255]], np.uint8)
    assert slice_entropy(slice_) == pytest.approx(sum(bits))
    assert entropy_map(slice_).tolist() == [[0, round(255 * bits[1])], [255, 0]]
