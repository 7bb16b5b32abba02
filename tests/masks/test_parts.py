"""Runs give the same parts as labelling every voxel."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy import ndimage

from napari_covseg.masks.parts import find_parts

MASKS = npst.arrays(bool, st.tuples(*[st.integers(1, 6)] * 3))


def whole(mask: np.ndarray) -> tuple[slice, slice, slice]:
    z, y, x = (slice(0, n) for n in mask.shape)
    return z, y, x


@given(MASKS, st.booleans())
def test_parts_are_those_of_every_voxel(mask: np.ndarray, three_d: bool) -> None:
    structure = ndimage.generate_binary_structure(3, 1)
    if not three_d:
        structure[[0, 2]] = False
    found, number = ndimage.label(mask, structure)
    parts = find_parts(lambda z: mask[z], whole(mask), three_d=three_d)
    assert len(parts.sizes) == number
    for point in np.ndindex(mask.shape):
        part = parts.at(point)
        assert (part is None) == (found[point] == 0)
        if part is not None:
            chosen = np.arange(number) == part
            here = np.zeros_like(mask)
            here[parts.index(chosen)] = True
            np.testing.assert_array_equal(here, found == found[point])
            assert parts.sizes[part] == here.sum()


@given(MASKS)
def test_which_parts_reach_the_edge(mask: np.ndarray) -> None:
    parts = find_parts(lambda z: mask[z], whole(mask))
    for of_slices in (False, True):
        edge = np.ones(mask.shape, bool)
        edge[(slice(None) if of_slices else slice(1, -1), slice(1, -1), slice(1, -1))] = False
        touching = parts.touching_edge(of_slices=of_slices)
        for part in range(len(parts.sizes)):
            assert touching[part] == edge[parts.index(np.arange(len(parts.sizes)) == part)].any()


def test_parts_in_a_box_lie_where_the_box_lies() -> None:
    mask = np.zeros((5, 6, 7), bool)
    mask[2:4, 3, 4:6] = True
    box = slice(1, 5), slice(2, 5), slice(3, 7)
    parts = find_parts(lambda z: mask[z][box[1:]], box)
    assert parts.at((2, 3, 5)) == 0 and parts.at((2, 3, 3)) is None
    np.testing.assert_array_equal(np.transpose(parts.index(np.array([True]))), np.argwhere(mask))
