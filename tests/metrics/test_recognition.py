"""Figures of recognition against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.metrics.recognition import auc, brier, confusion, intervals_by_patient, rates, reliability

TRUTH = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
FOUND = np.array([0, 0, 0, 1, 0, 1, 1, 1, 1, 0])


def test_rates_of_two_classes_are_those_by_hand() -> None:
    matrix = confusion(TRUTH, FOUND, 2)
    assert matrix.tolist() == [[3, 1], [2, 4]]
    expected = {"accuracy": 7 / 10, "sensitivity": 3 / 4, "specificity": 4 / 6, "precision": 3 / 5}
    expected |= {"f1": 6 / 9, "fpr": 2 / 6, "mcc": (3 * 4 - 2 * 1) / math.sqrt(5 * 4 * 6 * 5)}
    assert rates(matrix) == pytest.approx(expected)
    assert rates(matrix, positive=1)["sensitivity"] == pytest.approx(4 / 6)


def test_rates_of_three_classes_are_those_by_hand() -> None:
    # the multi-class example of Gorodkin 2004: R_K of this matrix, worked out by the covariances of Z
    matrix = np.array([[4, 1, 0], [1, 3, 1], [0, 1, 5]])
    one = np.repeat(np.arange(9), matrix.ravel())
    truth, found = np.eye(3)[one // 3], np.eye(3)[one % 3]
    apart = [a - a.mean(0) for a in (truth, found)]
    expected = (apart[0] * apart[1]).sum() / math.sqrt((apart[0] ** 2).sum() * (apart[1] ** 2).sum())
    got = rates(matrix)
    assert got["mcc"] == pytest.approx(expected)
    assert got["accuracy"] == 12 / 16
    assert (got["sensitivity"], got["specificity"], got["precision"]) == (4 / 5, 10 / 11, 4 / 5)


def test_what_would_divide_by_nothing_has_no_value() -> None:
    got = rates(confusion(np.array([1, 1]), np.array([1, 1]), 2))
    assert got["accuracy"] == got["specificity"] == 1
    assert all(math.isnan(got[key]) for key in ("sensitivity", "precision", "f1", "mcc"))
    assert math.isnan(auc(np.array([True, True]), np.array([0.1, 0.2])))


def test_area_under_the_curve_counts_ties_half() -> None:
    truth = np.array([True, True, False, False, False])
    # of six pairs four are in order, one is a tie, one is not
    assert auc(truth, np.array([0.9, 0.4, 0.4, 0.1, 0.6])) == pytest.approx(4.5 / 6)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=2, max_size=30))
def test_area_under_the_curve_is_the_share_of_pairs_in_order(rows: list[tuple[bool, int]]) -> None:
    truth, score = np.array([a for a, _ in rows]), np.array([float(b) for _, b in rows])
    pairs = [np.sign(a - b) / 2 + 0.5 for a in score[truth] for b in score[~truth]]
    got = auc(truth, score)
    assert got == pytest.approx(np.mean(pairs)) if pairs else math.isnan(got)


def test_brier_of_two_classes_counts_once_and_of_more_adds_up() -> None:
    assert brier(np.array([0, 1]), np.array([[0.8, 0.2], [0.4, 0.6]])) == pytest.approx((0.04 + 0.16) / 2)
    assert brier(np.array([2]), np.array([[0.2, 0.2, 0.6]])) == pytest.approx(0.04 + 0.04 + 0.16)


def test_reliability_has_a_point_for_each_part_with_pictures() -> None:
    probability = np.array([0.05, 0.95, 1.0, 0.92])
    points = reliability(np.array([False, True, True, False]), probability)
    assert points == [(0.05, 0.0, 1), (pytest.approx(2.87 / 3), pytest.approx(2 / 3), 3)]


def test_intervals_draw_patients_and_not_their_pictures() -> None:
    right = np.array([1.0] * 50 + [0.0] * 50)

    def accuracy(rows: np.ndarray) -> list[float]:
        return [float(right[rows].mean()), math.nan]

    (low, high), nothing = intervals_by_patient(np.array([f"patient {n}" for n in range(100)]), accuracy)
    assert 0.37 < low < 0.45 and 0.55 < high < 0.63  # 0.5 ± 1.96 · 0.05
    assert intervals_by_patient(np.array(["anna"] * 50 + ["bert"] * 50), accuracy)[0] == (0.0, 1.0)
    assert all(map(math.isnan, nothing))
