"""What is too small in 3-D goes, wherever it reaches; the rest stays as it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import ndimage

from napari_covseg.predict.volume import drop_small_findings

SPACING = (5.0, 2.0, 1.0)  # 100 voxels are 1 ml
THROUGH = ndimage.generate_binary_structure(3, 1)
THROUGH[1] = True  # diagonally in a slice, straight from slice to slice


def dropped(lesions: npt.NDArray[np.uint8], min_ml: float) -> npt.NDArray[np.uint8]:
    out = lesions.copy()
    lungs = np.full_like(lesions, 3)
    for change in drop_small_findings(
        lambda z: (lungs[z], lesions[z]), len(lesions), spacing=SPACING, min_ml=min_ml
    ):
        if change is not None:
            z, _, out[z] = change
            assert (out[z] != lesions[z]).any()  # only slices that change are told
    return out


@given(
    arrays(
        np.uint8,
        st.tuples(st.integers(1, 5), st.integers(1, 8), st.integers(1, 9)),
        elements=st.integers(0, 3),
    ),
    st.integers(1, 12),
)
def test_as_labelled_in_memory(lesions: npt.NDArray[np.uint8], voxels: int) -> None:
    lesions[lesions > 2] = 0
    found, number = ndimage.label(lesions, THROUGH)
    sizes = np.bincount(found.ravel(), minlength=number + 1)
    expected = np.where(sizes[found] < voxels, 0, lesions)
    np.testing.assert_array_equal(dropped(lesions, (voxels - 0.5) / 100), expected)


def test_parts_that_meet_only_below_are_one_finding() -> None:
    fork = np.zeros((4, 12, 12), np.uint8)
    fork[:3, 2:4, 2:4] = fork[:3, 2:4, 8:10] = 1
    fork[3, 2:4, 2:10] = 2
    fork[0, 10, 10] = 1
    left = dropped(fork, 0.3)
    assert np.count_nonzero(left) == np.count_nonzero(fork) - 1
    assert not left[0, 10, 10]
    assert not dropped(fork, 0.5).any()
