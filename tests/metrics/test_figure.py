"""What a case is, and what an empty mask does to the mean."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from napari_covseg.metrics import METRICS, Figure, dice, figure

# anna: right, half right, nothing there and nothing found; bert: nothing there and something found, missed
FOUND, TRUTH = np.zeros((2, 5, 4, 4), bool)
FOUND[0, :2, :2], TRUTH[0, :2, :2] = True, True
FOUND[1, 0, :2], TRUTH[1, 0, :4] = True, True
FOUND[3, 3, 3], TRUTH[4, 1, :2] = True, True
NAMES = ["anna"] * 3 + ["bert"] * 2
HALF = 2 * 2 / 6


@pytest.mark.parametrize(
    ("over", "empty", "values", "touched"),
    [
        ("slice", "left out", [1, HALF, 0, 0], 1),
        ("slice", "agree", [1, HALF, 1, 0, 0], 1),
        ("infected slice", "left out", [1, HALF, 0], 0),
        ("patient", "left out", [2 * 6 / 14, 0], 0),
        ("pooled", "left out", [2 * 6 / 17], 0),
    ],
)
def test_dice_over_cases(over: Any, empty: Any, values: list[float], touched: int) -> None:
    made = figure("dice", FOUND, TRUTH, NAMES, over=over, empty=empty)
    assert made.value == pytest.approx(np.mean(values))
    assert (made.n, made.empty) == (len(values), touched)
    if len(values) > 1:
        assert made.sd == pytest.approx(np.std(values, ddof=1))


@pytest.mark.parametrize(
    ("metric", "empty", "value", "n", "touched"),
    [
        ("sensitivity", "left out", (1 + 0.5 + 0) / 3, 3, 2),
        ("sensitivity", "agree", (1 + 0.5 + 1 + 0 + 0) / 5, 5, 2),
        ("precision", "left out", (1 + 1 + 0) / 3, 3, 2),
        ("specificity", "left out", (1 + 1 + 1 + 15 / 16 + 1) / 5, 5, 0),
        ("mcc", "agree", None, 5, 3),
        ("mae", "left out", 100 * (0 + 2 + 0 + 1 + 2) / 16 / 5, 5, 0),
        ("assd", "left out", None, 2, 3),
        ("assd", "agree", None, 3, 3),
        ("surface_dice", "left out", (1 + 1 + 0 + 0) / 4, 4, 1),
        ("surface_dice", "agree", (1 + 1 + 1 + 0 + 0) / 5, 5, 1),
    ],
)
def test_cases_without_a_value(metric: str, empty: Any, value: float | None, n: int, touched: int) -> None:
    made = figure(metric, FOUND, TRUTH, NAMES, empty=empty)
    assert (made.n, made.empty) == (n, touched)
    if value is not None:
        assert made.value == pytest.approx(value)


def test_the_papers_way_flatters_scans_with_many_empty_slices() -> None:
    """Averaged over slices, two empty masks that agree lift a poor result."""
    assert figure("dice", FOUND, TRUTH, empty="agree").value > figure("dice", FOUND, TRUTH).value


def test_distances_of_a_patient_slice_by_slice_or_in_depth() -> None:
    found, truth = np.zeros((2, 2, 5, 5), bool)
    found[0, 2, 2] = truth[1, 2, 2] = True
    flat = figure("hd95", found, truth, over="patient", spacing=(1, 1))
    assert math.isnan(flat.value)
    assert (flat.n, flat.empty) == (0, 1)
    deep = figure("hd95", found, truth, over="patient", spacing=(3, 1, 1))
    assert (deep.value, deep.n, deep.empty) == (3.0, 1, 0)
    truth[0, 2, 4] = True
    flat = figure("assd", found, truth, over="patient", spacing=(1, 0.5))
    assert (flat.value, flat.n, flat.empty) == (1.0, 1, 1)  # the second slice has no partner
    # patients are never neighbours in depth
    apart = figure(
        "hd95", found[:, :, :3], truth[:, :, :3], ["anna", "bert"], over="pooled", spacing=(3, 1, 1)
    )
    assert math.isnan(apart.value)
    # one slice of a volume has no depth
    assert figure("assd", found[:1], truth[:1], spacing=(3, 1, 1)).value == 2.0


@pytest.mark.parametrize("metric", METRICS)
def test_nothing_and_perfection(metric: str) -> None:
    none = figure(metric, FOUND[:0], TRUTH[:0])
    assert math.isnan(none.value) and math.isnan(none.sd) and (none.n, none.empty) == (0, 0)
    best = figure(metric, TRUTH, TRUTH, NAMES, over="pooled")
    assert best == Figure(pytest.approx(0 if metric in ("mae", "assd", "hd95") else 1), best.sd, 1, 0)


def test_pooled_is_the_metric_of_all_voxels() -> None:
    assert figure("dice", FOUND, TRUTH, over="pooled").value == dice(FOUND, TRUTH)


def test_faults() -> None:
    with pytest.raises(ValueError, match="no metric 'volume': choose from dice"):
        figure("volume", FOUND, TRUTH)
    with pytest.raises(ValueError, match="slices of shapes"):
        figure("dice", FOUND[0], TRUTH[0])
    with pytest.raises(ValueError, match="5 slices with 2 names"):
        figure("dice", FOUND, TRUTH, ["anna", "bert"])
