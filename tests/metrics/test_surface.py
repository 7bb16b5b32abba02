"""Distances between outlines against values worked out by hand and against MONAI."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_covseg.metrics.surface import surfaces

Mask = npt.NDArray[np.bool_]
Spacing = tuple[float, ...]
MM = st.floats(0.5, 3).map(lambda mm: round(mm, 2))


def assd(predicted: Mask, truth: Mask, spacing: Spacing) -> float:
    return surfaces(predicted, truth, spacing).assd


def hd95(predicted: Mask, truth: Mask, spacing: Spacing) -> float:
    return surfaces(predicted, truth, spacing).hd95


def surface_dice(
    predicted: Mask, truth: Mask, spacing: Spacing, tolerance: float, *, empty: float = 1.0
) -> float:
    return surfaces(predicted, truth, spacing).dice(tolerance, empty=empty)


@st.composite
def _pairs(draw: st.DrawFn) -> tuple[Mask, Mask, tuple[float, ...]]:
    """Two masks that are not empty, 2-D or 3-D, and a spacing."""
    shape = draw(array_shapes(min_dims=2, max_dims=3, min_side=2, max_side=7))
    first, second = (draw(arrays(np.bool_, shape)).copy() for _ in range(2))
    for mask in (first, second):
        mask[tuple(draw(st.integers(0, side - 1)) for side in shape)] = True
    return first, second, tuple(draw(MM) for _ in shape)


def _square(row: int, column: int, side: int = 4) -> Mask:
    mask = np.zeros((16, 16), bool)
    mask[row : row + side, column : column + side] = True
    return mask


def test_by_hand() -> None:
    point, other = _square(2, 2, 1), _square(2, 7, 1)
    for measure in (assd, hd95):
        assert measure(point, other, (0.7, 0.8)) == pytest.approx(5 * 0.8)
        assert measure(point.T, other.T, (0.7, 0.8)) == pytest.approx(5 * 0.7)
    assert assd(point[2], other[2], (0.8,)) == pytest.approx(5 * 0.8)
    # a square of 4 x 4 has an outline of 12; moved by 1, 8 of them lie on it or beside it
    square, moved = _square(2, 2), _square(2, 3)
    assert assd(square, moved, (1, 2)) == pytest.approx((2 * (4 * 2 + 2 * 1)) / 24)
    assert surface_dice(square, moved, (1, 2), 0) == pytest.approx(12 / 24)
    assert surface_dice(square, moved, (1, 2), 1) == pytest.approx(16 / 24)
    assert surface_dice(square, moved, (1, 2), 2) == 1


def test_the_95th_percentile_of_the_worse_direction() -> None:
    truth = np.zeros((1, 60), bool)
    truth[0, :20] = True
    found = truth.copy()
    found[0, 50] = True  # 31 away: one of 21 voxels, so between the 19th and the 20th distance
    assert hd95(found, truth, (1, 1)) == 0
    found[0, 40] = True
    assert hd95(found, truth, (1, 1)) == pytest.approx(np.percentile([0] * 20 + [21, 31], 95))


def test_slices_of_a_volume_on_their_own() -> None:
    """With two values, a slice never looks at the next one; slices without a partner are counted."""
    found = np.stack([_square(2, 2, 1), _square(2, 2, 1), _square(0, 0, 1)])
    truth = np.stack([_square(2, 7, 1), _square(2, 4, 1), np.zeros((16, 16), bool)])
    assert assd(found, truth, (1, 1)) == pytest.approx((5 + 5 + 2 + 2) / 4)
    assert hd95(found, truth, (1, 1)) == pytest.approx(5 * 0.95 + 2 * 0.05)  # of 5 in one slice, 2 in another
    assert surfaces(found, truth, (1, 1)).alone == 1
    assert surface_dice(found, truth, (1, 1), 3) == pytest.approx(2 / 5)
    assert assd(found, truth, (0.5, 1, 1)) < assd(found, truth, (1, 1))


def test_empty_masks() -> None:
    empty, some = np.zeros((16, 16), bool), _square(3, 3)
    for measure in (assd, hd95):
        for pair in ((empty, empty), (some, empty), (empty, some)):
            assert math.isnan(measure(*pair, (1, 1)))
        assert measure(some, some, (1, 1)) == 0
    assert surface_dice(empty, empty, (1, 1), 1) == 1
    assert surface_dice(empty, empty, (1, 1), 1, empty=0.5) == 0.5
    assert surfaces(empty, empty, (1, 1)).dice(1) == 1
    assert surface_dice(empty, some, (1, 1), 100) == surface_dice(some, empty, (1, 1), 100) == 0


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@given(_pairs(), st.floats(0, 6))
@settings(max_examples=40)
def test_as_monai_has_it(pair: tuple[Mask, Mask, tuple[float, ...]], tolerance: float) -> None:
    import torch
    from monai.metrics import (
        compute_average_surface_distance,
        compute_hausdorff_distance,
        compute_surface_dice,
    )

    first, second, spacing = pair
    a, b = (torch.from_numpy(mask)[None, None].float() for mask in (first, second))
    common = {"include_background": True, "spacing": list(spacing)}
    theirs = compute_average_surface_distance(a, b, symmetric=True, **common)
    assert assd(first, second, spacing) == pytest.approx(float(theirs), abs=1e-5)
    theirs = compute_hausdorff_distance(a, b, percentile=95, **common)
    assert hd95(first, second, spacing) == pytest.approx(float(theirs), abs=1e-5)
    theirs = compute_surface_dice(a, b, [tolerance], **common)
    assert surface_dice(first, second, spacing, tolerance) == pytest.approx(float(theirs), abs=1e-6)


@given(_pairs(), st.floats(0.25, 4))
@settings(max_examples=50)
def test_distances_grow_with_the_spacing(pair: tuple[Mask, Mask, tuple[float, ...]], factor: float) -> None:
    first, second, spacing = pair
    larger = tuple(factor * mm for mm in spacing)
    for measure in (assd, hd95):
        value = measure(first, second, spacing)
        assert measure(second, first, spacing) == pytest.approx(value)
        assert measure(first, second, larger) == pytest.approx(factor * value)
        assert (value == 0) or not np.array_equal(first, second)
    assert 0 <= surface_dice(first, second, spacing, 1) <= surface_dice(first, second, spacing, 2) <= 1


def test_a_spacing_that_does_not_fit_is_a_fault() -> None:
    mask = _square(1, 1)
    for spacing in ((1, 1, 1), (), (1, 0), (1, math.nan)):
        with pytest.raises(ValueError, match="spacing"):
            assd(mask, mask, spacing)
    with pytest.raises(ValueError, match="different shapes"):
        hd95(mask, mask[:8], (1, 1))
