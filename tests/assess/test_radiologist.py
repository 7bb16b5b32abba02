"""What a correction costs, against slices drawn by hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from napari_covseg.assess.effort import Cost, Radiologist, correction_cost


def boxes(*corners: tuple[int, int, int, int], value: int = 1) -> npt.NDArray[np.uint8]:
    """Return a slice with boxes of (top, bottom, left, right)."""
    mask = np.zeros((40, 40), np.uint8)
    for top, bottom, left, right in corners:
        mask[top:bottom, left:right] = value
    return mask


LESION = boxes((10, 20, 10, 20))
LARGE = boxes((5, 30, 5, 30))


@pytest.mark.parametrize(
    ("labels", "truth", "cost"),
    [
        (LESION, LESION, Cost(0, 0)),
        (boxes(), LESION, Cost(4, 0)),  # a box has four corners
        (boxes((11, 21, 10, 20)), LESION, Cost(0, 0)),  # a pixel off is good enough
        (boxes((10, 20, 10, 14)), LESION, Cost(2, 0)),  # two corners are there
        (LESION | boxes((30, 34, 30, 34), (30, 34, 5, 9)), LESION, Cost(0, 2)),  # two specks to delete
        (LESION, boxes(), Cost(0, 1)),
        (LESION - boxes((13, 16, 13, 16)), LESION, Cost(0, 1)),  # a hole to fill
        (LARGE, LARGE - boxes((14, 20, 14, 20)), Cost(4, 0)),  # a hole to draw
        (2 * LESION, LESION, Cost(0, 1)),  # relabel
        (LESION, LESION + boxes((30, 35, 30, 35), value=3), Cost(4, 0)),
    ],
)
def test_costs(labels: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8], cost: Cost) -> None:
    assert correction_cost(labels, truth) == cost


masks = arrays.arrays(np.uint8, (12, 12), elements=st.integers(0, 3))


@given(masks, masks)
def test_the_truth_costs_nothing_and_drawing_all_costs_most_strokes(
    labels: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]
) -> None:
    assert correction_cost(truth, truth) == Cost()
    cost = correction_cost(labels, truth)
    assert 0 <= cost.strokes <= correction_cost(np.zeros_like(truth), truth).strokes
    assert cost.clicks >= 0


def test_a_corrected_slice_never_counts() -> None:
    truth = np.stack([LESION, LESION, boxes((10, 20, 10, 14))])
    radiologist = Radiologist(truth)
    labels = np.zeros_like(truth)
    labels[1] = LESION
    before = radiologist.mark(labels)
    assert before == pytest.approx(2 * 100 / (100 + 240))
    shown = radiologist.correct(0, labels[0])
    assert np.array_equal(shown, LESION)
    assert radiologist.mark(labels) == pytest.approx(2 * 100 / (100 + 140))
    labels[0] = 1  # whatever is there now
    assert radiologist.mark(labels) == pytest.approx(2 * 100 / (100 + 140))
    radiologist.correct(2, labels[2])
    assert radiologist.mark(labels) == 1
    assert radiologist.cost == correction_cost(np.zeros_like(LESION), LESION) + correction_cost(
        np.zeros_like(LESION), truth[2]
    )
    with pytest.raises(ValueError, match="before"):
        radiologist.correct(0, labels[0])


def test_with_every_slice_corrected_nothing_is_wrong() -> None:
    radiologist = Radiologist(LESION[None])
    radiologist.correct(0, np.zeros_like(LESION))
    assert radiologist.mark(np.zeros((1, 40, 40), np.uint8)) == 1
