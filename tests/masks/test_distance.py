"""Signed distances slice by slice are those of the whole volume."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from napari_covseg.masks.distance import distance_to, signed_distance, signed_distances, windows


@given(
    npst.arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 9), st.integers(1, 9))),
    st.sampled_from([(1.0, 1.0, 1.0), (2.5, 0.7, 0.7), (0.5, 0.9, 0.6)]),
)
def test_in_a_volume(mask: np.ndarray, size: tuple[float, float, float]) -> None:
    cap = 3.0
    got = np.stack(list(signed_distances(lambda z: mask[z], range(len(mask)), size, cap)))
    half = min(size) / 2
    inside = ndimage.distance_transform_edt(mask, sampling=size) if not mask.all() else np.inf
    outside = ndimage.distance_transform_edt(~mask, sampling=size) if mask.any() else np.inf
    truth = np.where(mask, np.minimum(inside - half, cap), np.maximum(half - outside, -cap))
    # OpenCV's distances in a plane are off by up to 2 %
    np.testing.assert_allclose(got, truth, rtol=0.02, atol=0.05)


def test_on_a_slice() -> None:
    mask = np.zeros((9, 9), bool)
    mask[3:6, 3:6] = True
    distance = signed_distance(mask, (0.5, 0.5), 10.0)
    assert distance[4, 3:6] == pytest.approx([0.25, 0.75, 0.25])
    assert distance[4, 0] == pytest.approx(-1.25)
    assert (signed_distance(np.zeros((3, 3), bool), (1.0, 1.0), 4.0) == -4.0).all()
    assert (signed_distance(np.ones((3, 3), bool), (1.0, 1.0), 4.0) == 4.0).all()


def test_pixels_that_are_not_square() -> None:
    mask = np.zeros((1, 5), bool)
    mask[0, 0] = True
    assert distance_to(mask, (1.0, 0.6), 2.0)[0] == pytest.approx([0, 0.6, 1.2, 1.8, 2.0])
    assert distance_to(mask.T, (1.0, 0.6), 3.0)[:, 0] == pytest.approx([0, 1, 2, 3, 3])


@given(st.integers(0, 12), st.integers(0, 4))
def test_windows(count: int, reach: int) -> None:
    seen = list(windows(iter(range(count)), reach))
    assert [near[middle] for near, middle in seen] == list(range(count))
    for number, (near, _) in enumerate(seen):
        assert near == list(range(max(0, number - reach), min(count, number + reach + 1)))
