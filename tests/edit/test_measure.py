"""The ruler measures in mm, a region its HU, ml and mm2."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.measure import read_disc, read_part, ruler
from napari_covseg.errors import EditError

SPACING = (5.0, 0.5, 0.8)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((3, 20, 20), np.uint8)
    labels[:2, 2:6, 2:7] = 2
    labels[0, 10:12, 10:12] = 2
    return labels


@pytest.fixture
def voxels() -> np.ndarray:
    return np.random.default_rng(0).integers(-1000, 3000, (3, 20, 20)).astype(np.int16)


def test_ruler() -> None:
    assert ruler((0, 0, 0), (0, 30, 0), SPACING) == 15.0
    assert ruler((1, 2, 3), (2, 2 + 24, 3), SPACING) == 13.0
    assert ruler((0, 0, 0), (0, 3, 4), None) == 5.0


def test_the_part_under_a_click(labels: np.ndarray, voxels: np.ndarray) -> None:
    part = read_part(labels, voxels, (0, 3, 3), SPACING, three_d=True)
    values = voxels[:2, 2:6, 2:7].astype(float)
    assert (part.mean, part.sd) == (pytest.approx(values.mean()), pytest.approx(values.std()))
    assert part.voxels == 40 and part.volume_ml == pytest.approx(0.08) and part.area_mm2 is None
    flat = read_part(labels, voxels, (0, 3, 3), SPACING)
    assert flat.voxels == 20 and flat.area_mm2 == pytest.approx(8.0)


def test_a_disc(voxels: np.ndarray) -> None:
    disc = read_disc(voxels, (1, 10, 10), 1.0, SPACING)
    inside = voxels[1][[8, 9, 10, 11, 12, 10, 10, 9, 9, 11, 11], [10, 10, 10, 10, 10, 9, 11, 9, 11, 9, 11]]
    assert disc.voxels == 11 and disc.mean == pytest.approx(inside.mean())
    assert read_disc(voxels, (1, 0, 0), 0.1, None).voxels == 1


def test_pictures_have_no_volume(labels: np.ndarray, voxels: np.ndarray) -> None:
    picture = read_part(labels, voxels, (0, 3, 3), None)
    assert picture.volume_ml is None and picture.area_mm2 is None and picture.voxels == 20


def test_refusals(labels: np.ndarray, voxels: np.ndarray) -> None:
    with pytest.raises(EditError, match="no label under the click"):
        read_part(labels, voxels, (0, 0, 0), SPACING)
