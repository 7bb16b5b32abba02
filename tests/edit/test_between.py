"""Shapes between two slices pass from the one to the other."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.between import fill_between
from napari_covseg.errors import EditError

SPACING = (5.0, 0.7, 0.7)
SHAPE = (9, 80, 90)


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    yy, xx = np.indices(SHAPE[1:])
    return np.asarray((yy - centre[0]) ** 2 + (xx - centre[1]) ** 2 <= radius**2)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.sum(one & other) / (one.sum() + other.sum()))


def filled(labels: np.ndarray, one: int, other: int, **options: object) -> np.ndarray:
    after = labels.copy()
    edit = fill_between(labels, one, other, SPACING, **options)  # type: ignore[arg-type]
    after[edit.index] = edit.after
    return after


@pytest.mark.parametrize(("one", "other"), [(1, 7), (7, 1)])
def test_a_cone_grows_evenly(one: int, other: int) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[1][disc((40, 40), 6)] = 2
    labels[7][disc((40, 40), 24)] = 2
    after = filled(labels, one, other)
    for z in range(2, 7):
        assert dice(after[z] == 2, disc((40, 40), 6 + 3 * (z - 1))) > 0.97
    outside = [0, 1, 7, 8]
    np.testing.assert_array_equal(after[outside], labels[outside])


def test_a_moving_shape_moves_even_where_its_ends_do_not_overlap() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0][disc((20, 20), 8)] = 1
    labels[8][disc((60, 68), 8)] = 1
    after = filled(labels, 0, 8)
    assert dice(after[4] == 1, disc((40, 44), 8)) > 0.95


def test_a_shape_on_one_slice_only_tapers_off() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0][disc((40, 40), 20)] = 1
    areas = (filled(labels, 0, 8) == 1).sum((1, 2))
    assert (np.diff(areas[:8]) < 0).all() and areas[7] > 0 and areas[8] == 0


def test_what_was_there_is_replaced_and_other_labels_stay() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[[2, 4]] = np.where(disc((40, 40), 15), 2, 0)
    labels[3, :10] = 2  # wrong: replaced
    labels[3, 40] = 3  # another finding
    only = filled(labels, 2, 4, value=2)
    np.testing.assert_array_equal(only[3] == 3, labels[3] == 3)
    np.testing.assert_array_equal(only[3] == 2, disc((40, 40), 15) & (labels[3] != 3))


def test_several_labels_share_what_lies_between() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    for z in (2, 6):
        labels[z][disc((40, 40), 20)] = 2
        labels[z][disc((40, 40), 8)] = 3
    after = filled(labels, 2, 6)
    np.testing.assert_array_equal(after[3], labels[2])
    np.testing.assert_array_equal(after[5], labels[2])


def test_progress_counts_slices() -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[[0, 8], 30:40, 30:40] = 1
    told: list[tuple[int, int]] = []
    fill_between(labels, 0, 8, SPACING, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 7) for n in range(8)]


@pytest.mark.parametrize(
    ("one", "other", "value", "message"),
    [
        (3, 4, None, "no slice between"),
        (3, 3, None, "no slice between"),
        (0, 9, None, "no slice 10"),
        (0, 5, None, "has any label"),
        (2, 5, 3, "has the label 3"),
        (2, 5, -1, "no label -1"),
    ],
)
def test_refusals(one: int, other: int, value: int | None, message: str) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[2, 5:9, 5:9] = 1
    with pytest.raises(EditError, match=message):
        fill_between(labels, one, other, SPACING, value=value)
