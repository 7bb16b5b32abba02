"""Whatever was cut out, padded and resized comes back to where it was."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.models.forward import restore
from napari_covseg.models.preparation import Placement, Preparation

SHAPES = st.tuples(st.integers(30, 140), st.integers(30, 140))
SIZES = st.sampled_from([64, 97, 128, 224])


@st.composite
def crops(draw: st.DrawFn) -> Placement:
    """A part of at least 24 pixels per side, anywhere in a slice of any shape."""
    shape = draw(SHAPES)
    starts = [draw(st.integers(0, n - 24)) for n in shape]
    lengths = [draw(st.integers(24, n - start)) for n, start in zip(shape, starts, strict=True)]
    return Placement(shape, *starts, *lengths)


def there_and_back(
    values: npt.NDArray[np.float64], placement: Placement, size: int
) -> npt.NDArray[np.float32]:
    """Take a map of 0-1 as HU of 0-1000 to the network's grid, and what comes out back to the scan's."""
    preparation = Preparation(size, (0.0, 1000.0), clahe_clip=0, scaling="window")
    image = preparation((1000 * values).astype(np.int16), "HU", placement)
    probability = torch.from_numpy(image)[None, None].float() / 255
    return restore(probability, placement)[0, 0].numpy()


def inside(placement: Placement) -> tuple[slice, slice]:
    top, left = placement.top, placement.left
    return slice(top, top + placement.height), slice(left, left + placement.width)


@given(crops(), SIZES, st.floats(0, 6), st.floats(0, 6))
def test_a_smooth_map_comes_back(placement: Placement, size: int, right: float, down: float) -> None:
    y, x = np.mgrid[: placement.shape[0], : placement.shape[1]] / 60
    smooth = 0.5 + 0.4 * np.sin(x + right) * np.cos(y + down)
    back = there_and_back(smooth, placement, size)
    here = inside(placement)
    assert back.shape == placement.shape
    # the padding of a part that is not square bleeds into its last pixels
    core = tuple(slice(edge.start + 4, edge.stop - 4) for edge in here)
    np.testing.assert_allclose(back[core], smooth[core], atol=0.03)
    outside = np.ones(placement.shape, bool)
    outside[here] = False
    assert not back[outside].any()


@given(crops(), SIZES, st.floats(0.25, 0.75), st.floats(0.25, 0.75))
def test_a_blob_stays_where_it_is(placement: Placement, size: int, down: float, across: float) -> None:
    rows, columns = inside(placement)
    at = np.array([rows.start + down * placement.height, columns.start + across * placement.width])
    y, x = np.mgrid[: placement.shape[0], : placement.shape[1]]
    wide = max(2.5, 1.5 * placement.side / size)
    blob = np.exp(-((y - at[0]) ** 2 + (x - at[1]) ** 2) / (2 * wide**2))
    seen = np.zeros_like(blob)
    seen[rows, columns] = blob[rows, columns]
    back = there_and_back(blob, placement, size)
    for grid in (y, x):
        there, here = (float((grid * one**2).sum() / (one**2).sum()) for one in (seen, back))
        assert abs(there - here) < 0.15


@given(SHAPES, SIZES)
def test_a_whole_slice_is_the_default(shape: tuple[int, int], size: int) -> None:
    voxels = np.random.default_rng(0).integers(-1000, 400, shape).astype(np.int16)
    for preparation in (Preparation(size), Preparation(size, scaling="window", clip_hu=(-1000.0, 400.0))):
        assert preparation.place(shape) == Placement.whole(shape)
        np.testing.assert_array_equal(preparation(voxels, "HU", Placement.whole(shape)), preparation(voxels))


@given(crops(), st.integers(0, 12))
def test_the_box_holds_the_lungs_and_a_margin(placement: Placement, margin: int) -> None:
    lungs = np.zeros(placement.shape, np.uint8)
    lungs[inside(placement)] = 3
    found = Preparation(crop="lungs", crop_margin=margin).place(lungs.shape, lungs)
    assert found is not None
    rows, columns = inside(found)
    height, width = placement.shape
    assert rows.start == max(0, placement.top - margin)
    assert columns.start == max(0, placement.left - margin)
    assert rows.stop == min(height, placement.top + placement.height + margin)
    assert columns.stop == min(width, placement.left + placement.width + margin)


def test_without_lungs_there_is_nothing_to_see() -> None:
    preparation = Preparation(crop="lungs")
    assert preparation.place((40, 50), np.zeros((40, 50), np.uint8)) is None
    with pytest.raises(ValueError, match="needs the lungs"):
        preparation.place((40, 50))


def test_a_picture_is_cropped_too_and_scaled_by_what_is_left() -> None:
    picture = np.arange(64 * 64, dtype=np.int16).reshape(64, 64)
    part = Placement((64, 64), 8, 16, 32, 32)
    made = Preparation(size=32, scaling="window")(picture, "grey", part, equalised=True)
    cut = picture[8:40, 16:48].astype(float)
    np.testing.assert_array_equal(made, ((cut - cut.min()) * (255 / np.ptp(cut))).astype(np.uint8))
