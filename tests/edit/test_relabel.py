"""One click gives a connected part another label."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.relabel import next_in_cycle, relabel
from napari_covseg.errors import EditError


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((4, 20, 20), np.uint8)
    labels[0:3, 2:6, 2:6] = 2
    labels[1, 2:6, 6:9] = 3  # touches
    labels[1, 12:15, 12:15] = 2  # lies apart
    return labels


def test_on_the_slice_and_in_the_volume(labels: np.ndarray) -> None:
    on_slice, whole = labels.copy(), labels.copy()
    edit = relabel(labels, (1, 3, 3))
    on_slice[edit.index] = edit.after
    truth = labels.copy()
    truth[1, 2:6, 2:6] = 3
    np.testing.assert_array_equal(on_slice, truth)
    edit = relabel(labels, (1, 3, 3), 4, three_d=True)
    whole[edit.index] = edit.after
    truth = labels.copy()
    truth[0:3, 2:6, 2:6] = 4
    np.testing.assert_array_equal(whole, truth)


def test_clicks_go_round_the_findings() -> None:
    assert [next_in_cycle(v) for v in (2, 3, 4, 1)] == [3, 4, 2, 2]


def test_a_click_goes_to_the_nearest_voxel(labels: np.ndarray) -> None:
    assert len(relabel(labels, (1.2, 11.6, 14.4), 3)) == 9


@pytest.mark.parametrize(
    ("point", "value", "message"),
    [
        ((1, 0, 0), 3, "no label under the click"),
        ((4, 3, 3), 3, "outside the scan"),
        ((1, -1, 3), None, "outside the scan"),
        ((1, 3, 3), 0, "no label 0"),
    ],
)
def test_refusals(labels: np.ndarray, point: tuple[int, ...], value: int | None, message: str) -> None:
    with pytest.raises(EditError, match=message):
        relabel(labels, point, value)
