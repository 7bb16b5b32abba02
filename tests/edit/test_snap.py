"""A copied outline follows the image; where nothing moved the copy stands."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.snap import copy_to
from napari_covseg.errors import EditError

SPACING = (2.0, 0.7, 0.7)
SHAPE = (3, 90, 100)


def disc(centre: tuple[float, float], radius: float) -> np.ndarray:
    yy, xx = np.indices(SHAPE[1:])
    return np.asarray((yy - centre[0]) ** 2 + (xx - centre[1]) ** 2 <= radius**2)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.sum(one & other) / (one.sum() + other.sum()))


TRUTH = np.stack([disc((45, 45), 18), disc((46, 47), 20), disc((45, 45), 18)])


@pytest.fixture(scope="module")
def voxels() -> np.ndarray:
    """A lesion in lung that moves and grows on slice 1, beside a chest wall; slice 2 is like slice 0."""
    voxels = np.where(TRUTH, -600.0, -870.0)
    voxels[:, :, 80:] = 40
    return (voxels + np.random.default_rng(1).normal(0, 40, SHAPE)).astype(np.int16)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.uint8)
    labels[0][TRUTH[0]] = 2
    return labels


def copied(labels: np.ndarray, voxels: np.ndarray, to: int, **options: object) -> np.ndarray:
    after = labels.copy()
    edit = copy_to(labels, voxels, 0, to, SPACING, **options)  # type: ignore[arg-type]
    after[edit.index] = edit.after
    return after


def test_the_outline_follows_the_image(labels: np.ndarray, voxels: np.ndarray) -> None:
    plain = copied(labels, voxels, 1, snap=False)
    np.testing.assert_array_equal(plain[1], labels[0])
    snapped = copied(labels, voxels, 1)
    assert dice(snapped[1] == 2, TRUTH[1]) > 0.97 > dice(plain[1] == 2, TRUTH[1])
    np.testing.assert_array_equal(snapped[[0, 2]], labels[[0, 2]])


def test_where_the_image_is_the_same_the_copy_is(labels: np.ndarray, voxels: np.ndarray) -> None:
    assert dice(copied(labels, voxels, 2)[2] == 2, TRUTH[0]) > 0.99
    same = np.repeat(voxels[:1], 3, axis=0)
    assert np.sum(copied(labels, same, 2)[2] != labels[0]) < 5


def test_no_further_than_the_band(labels: np.ndarray, voxels: np.ndarray) -> None:
    far = voxels.copy()
    far[1] = -600  # all of the slice looks like the lesion
    after = copied(labels, far, 1, band_mm=2.1)
    assert not (after[1].astype(bool) & ~disc((45, 45), 18 + 4.2)).any()


def test_a_shape_that_fills_its_surroundings_is_copied_as_it_is() -> None:
    labels = np.zeros((2, 8, 8), np.uint8)
    labels[0] = 1
    after = labels.copy()
    edit = copy_to(labels, np.zeros(labels.shape, np.int16), 0, 1, None)
    after[edit.index] = edit.after
    assert (after[1] == 1).all()


def test_what_was_there_is_replaced_and_other_labels_stay(labels: np.ndarray, voxels: np.ndarray) -> None:
    labels[1, 45] = 3
    labels[1, :5] = 2
    after = copied(labels, voxels, 1, value=2, snap=False)
    np.testing.assert_array_equal(after[1] == 3, labels[1] == 3)
    np.testing.assert_array_equal(after[1] == 2, TRUTH[0] & (labels[1] != 3))


def test_all_labels_are_copied_together(labels: np.ndarray, voxels: np.ndarray) -> None:
    labels[0][disc((45, 45), 6)] = 3
    np.testing.assert_array_equal(copied(labels, voxels, 1, snap=False)[1], labels[0])
    snapped = copied(labels, voxels, 1)[1]
    assert dice(snapped > 0, TRUTH[1]) > 0.95 and dice(snapped == 3, labels[0] == 3) > 0.8


@pytest.mark.parametrize(
    ("z", "to", "value", "message"),
    [
        (0, 0, None, "onto itself"),
        (0, 3, None, "no slice 4"),
        (1, 2, None, "Slice 2 has no label to copy"),
        (0, 1, 3, "Slice 1 has no label 3"),
    ],
)
def test_refusals(
    labels: np.ndarray, voxels: np.ndarray, z: int, to: int, value: int | None, message: str
) -> None:
    with pytest.raises(EditError, match=message):
        copy_to(labels, voxels, z, to, SPACING, value=value)
