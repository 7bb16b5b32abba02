"""Overlap against values worked out by hand and against MONAI."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from napari_covseg.metrics import dice
from napari_covseg.metrics.overlap import Counts, count, overlaps

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
def test_dice_by_hand(predicted: list[int], truth: list[int], value: float) -> None:
    assert dice(np.array(predicted, bool), np.array(truth, bool)) == pytest.approx(value)


# 3 true positives, 1 false positive, 2 false negatives, 4 true negatives
FOUND, TRUTH = (
    np.array(row, bool) for row in ([1, 1, 1, 1, 0, 0, 0, 0, 0, 0], [1, 1, 1, 0, 1, 1, 0, 0, 0, 0])
)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dice", 6 / 9),
        ("f1", 6 / 9),
        ("jaccard", 3 / 6),
        ("sensitivity", 3 / 5),
        ("specificity", 4 / 5),
        ("precision", 3 / 4),
        ("accuracy", 7 / 10),
        ("mcc", (3 * 4 - 2 * 1) / math.sqrt(5 * 5 * 4 * 6)),
        ("mae", 30.0),
    ],
)
def test_all_by_hand(name: str, value: float) -> None:
    assert count(FOUND, TRUTH) == Counts(3, 1, 2, 4)
    assert overlaps(count(FOUND, TRUTH))[name] == pytest.approx(value)


EMPTY, SOME, FULL = np.zeros(4, bool), np.array([0, 1, 0, 0], bool), np.ones(4, bool)


@pytest.mark.parametrize(
    ("name", "predicted", "truth", "value"),
    [
        ("dice", EMPTY, EMPTY, math.nan),
        ("jaccard", EMPTY, EMPTY, math.nan),
        ("f1", EMPTY, EMPTY, math.nan),
        ("sensitivity", SOME, EMPTY, math.nan),
        ("sensitivity", EMPTY, SOME, 0.0),
        ("specificity", EMPTY, EMPTY, 1.0),
        ("specificity", SOME, FULL, math.nan),
        ("precision", EMPTY, SOME, math.nan),
        ("accuracy", EMPTY, EMPTY, 1.0),
        ("mcc", SOME, EMPTY, math.nan),
        ("mae", EMPTY, EMPTY, 0.0),
    ],
)
def test_empty_masks(name: str, predicted: Mask, truth: Mask, value: float) -> None:
    assert overlaps(count(predicted, truth))[name] == pytest.approx(value, nan_ok=True)


@given(PAIRS)
@settings(max_examples=50)
def test_symmetric_and_between_0_and_1(pair: tuple[Mask, Mask]) -> None:
    a, b = pair
    assert 0 <= dice(a, b) <= 1
    assert dice(a, b) == dice(b, a)
    assert (dice(a, b) == 1) == np.array_equal(a, b)
    assert dice(a, a) == 1
    figures, opposite = overlaps(count(a, b)), overlaps(count(~a, b))
    assert figures["f1"] == pytest.approx(figures["dice"], nan_ok=True)
    assert figures["jaccard"] == pytest.approx(figures["dice"] / (2 - figures["dice"]), nan_ok=True)
    assert figures["mae"] == pytest.approx(100 * np.mean(a != b))
    assert figures["mcc"] == pytest.approx(-opposite["mcc"], nan_ok=True)


@given(PAIRS)
@settings(max_examples=40)
def test_as_monai_has_it(pair: tuple[Mask, Mask]) -> None:
    import torch
    from monai.metrics import compute_confusion_matrix_metric, compute_dice, compute_iou, get_confusion_matrix

    a, b = (torch.from_numpy(mask)[None, None] for mask in pair)
    assert dice(*pair) == pytest.approx(float(compute_dice(a, b, ignore_empty=False)))
    ours = overlaps(count(*pair))
    if pair[1].any():
        assert ours["jaccard"] == pytest.approx(float(compute_iou(a, b)))
    matrix = get_confusion_matrix(a.float(), b.float())
    names = {"sensitivity": "tpr", "specificity": "tnr", "precision": "ppv", "accuracy": "acc"}
    for name, theirs in names.items():
        value = float(compute_confusion_matrix_metric(theirs, matrix))
        assert ours[name] == pytest.approx(value, nan_ok=True)
    value = float(compute_confusion_matrix_metric("mcc", matrix))
    assert math.isnan(value) or ours["mcc"] == pytest.approx(value, abs=1e-6)


def test_pooled_over_slices_is_not_the_mean_of_slices() -> None:
    predicted, truth = np.zeros((2, 4), bool), np.zeros((2, 4), bool)
    predicted[0], truth[0] = True, True
    predicted[1, 0], truth[1, 1] = True, True
    assert dice(predicted, truth) == pytest.approx(2 * 4 / 10)


@given(PAIRS, st.data())
@settings(max_examples=40)
def test_counts_of_parts_add_up_to_those_of_all(pair: tuple[Mask, Mask], data: st.DataObject) -> None:
    a, b = (mask.ravel() for mask in pair)
    cut = data.draw(st.integers(0, len(a)))
    together = count(a[:cut], b[:cut]) + count(a[cut:], b[cut:])
    assert together == count(a, b)


def test_masks_of_other_shapes_are_a_fault() -> None:
    with pytest.raises(ValueError, match=r"\(2, 2\) and \(4,\)"):
        dice(np.zeros((2, 2), bool), np.zeros(4, bool))
