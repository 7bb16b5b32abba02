"""Canonical orientation and back, for every way a scan can lie."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from napari_covseg.scans.orientation import (
    as_stored,
    canonical_affine,
    canonical_axes,
    empty,
    geometry_notes,
    rotation_degrees,
    spacing_of,
    tilt_degrees,
)

WAYS = [(order, signs) for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)]


def affine_of(order: tuple[int, ...], signs: tuple[float, ...], spacing: tuple[float, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * signs * spacing
    affine[:3, 3] = (-7.5, 11.0, 3.25)
    return affine


sizes = st.tuples(*[st.integers(1, 5)] * 3)
spacings = st.tuples(*[st.floats(0.25, 8)] * 3)
small_turns = st.tuples(*[st.floats(-25, 25)] * 3)


@given(way=st.sampled_from(WAYS), shape=sizes, spacing=spacings, turn=small_turns)
def test_every_voxel_keeps_its_place_in_the_world(way, shape, spacing, turn):
    affine = affine_of(*way, spacing)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ affine[:3, :3]
    axes, flips = canonical_axes(affine)
    canonical, stored = empty(shape, affine, int)
    canonical[...] = np.arange(canonical.size).reshape(canonical.shape)
    assert stored.shape == shape
    to_world = canonical_affine(affine, shape, axes, flips)
    k, j, i = np.indices(shape).reshape(3, -1)
    z, y, x = np.unravel_index(stored.ravel(), canonical.shape)
    one = np.ones(stored.size)
    np.testing.assert_allclose(to_world @ [z, y, x, one], affine @ [i, j, k, one], atol=1e-9)


@given(way=st.sampled_from(WAYS), spacing=spacings)
def test_canonical_axes_rise_to_head_back_and_left(way, spacing):
    affine = affine_of(*way, spacing)
    axes, flips = canonical_axes(affine)
    columns = canonical_affine(affine, (3, 4, 5), axes, flips)[:3, :3]
    z, y, x = spacing_of(affine, axes)
    np.testing.assert_allclose(columns, [[0, 0, x], [0, y, 0], [z, 0, 0]], atol=1e-12)


def test_as_stored_is_a_view():
    canonical = np.zeros((2, 3, 4), np.int16)
    as_stored(canonical, (1, 2, 0), (True, False, True))[...] = 7
    assert (canonical == 7).all()


@given(way=st.sampled_from(WAYS), shape=sizes)
def test_canonical_is_the_flipped_transposed_stored(way, shape):
    axes, flips = canonical_axes(affine_of(*way, (1, 1, 1)))
    stored = np.arange(np.prod(shape)).reshape(shape)
    canonical = np.flip(stored.transpose(axes), [n for n in range(3) if flips[n]])
    np.testing.assert_array_equal(as_stored(canonical, axes, flips), stored)


@pytest.mark.parametrize("degrees", [0.0, 5.0, -18.0])
def test_gantry_tilt_is_measured_and_keeps_the_volume_of_a_voxel(degrees):
    affine = np.diag([0.5, 0.5, 2.0, 1.0])
    affine[1, 2] = 2.0 * np.tan(np.radians(degrees))
    assert tilt_degrees(affine) == pytest.approx(abs(degrees))
    assert np.prod(spacing_of(affine, (0, 1, 2))) == pytest.approx(0.5)
    notes = " ".join(geometry_notes(affine))
    assert ("Gantry tilt" in notes) == (degrees != 0)


def test_rotation_is_said():
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("z", 10, degrees=True).as_matrix()
    assert rotation_degrees(affine) == pytest.approx(10)
    assert "Rotated by 10.0°" in " ".join(geometry_notes(affine))
    assert geometry_notes(np.eye(4)) == ()
