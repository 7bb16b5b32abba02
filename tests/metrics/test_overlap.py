"""Dice against values worked out by hand and against MONAI."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_covseg.metrics import dice

Mask = npt.NDArray[np.bool_]
PAIRS = array_shapes(min_dims=1, max_dims=3, max_side=6).flatmap(
    lambda shape: st.tuples(arrays(np.bool_, shape), arrays(np.bool_, shape))
)


@pytest.mark.parametrize(
    ("predicted", "truth", "value"),
    [
        ([1, 1, 0, 0], [1, 1, 0, 0], 1.0),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 1, 1, 0], [0, 1, 1, 1], 2 * 2 / 6),
        ([1, 0, 0, 0], [1, 1, 1, 1], 2 * 1 / 5),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),  # nothing there and nothing found
        ([0, 0, 0, 0], [0, 1, 0, 0], 0.0),
        ([0, 1, 0, 0], [0, 0, 0, 0], 0.0),
    ],
)
def test_by_hand(predicted: list[int], truth: list[int], value: float) -> None:
    assert dice(np.array(predicted, bool), np.array(truth, bool)) == pytest.approx(value)


@given(PAIRS)
def test_symmetric_and_between_0_and_1(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    assert 0 <= dice(a, b) <= 1
    assert dice(a, b) == dice(b, a)
    assert (dice(a, b) == 1) == np.array_equal(a, b)
    assert dice(a, a) == 1


@given(PAIRS)
def test_as_monai_has_it(pair: tuple[Mask, Mask]) -> None:
    import torch
    from monai.metrics import compute_dice

    a, b = (torch.from_numpy(mask)[None, None] for mask in pair)
    assert dice(*pair) == pytest.approx(float(compute_dice(a, b, ignore_empty=False)))


def test_pooled_over_slices_is_not_the_mean_of_slices() -> None:
    predicted, truth = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    predicted[0], truth[0] = True, True
    predicted[1, 0], truth[1, 1] = True, True
    assert dice(predicted, truth) == pytest.approx(2 * 4 / 10)


def test_masks_of_other_shapes_are_a_fault() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(4,\)"):
        dice(np.zeros((2, 2), bool), np.zeros(4, bool))
