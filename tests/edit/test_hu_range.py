"""Ranges of HU include both ends; a stroke is cut to one."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit import PRESETS, HuRange
from napari_covseg.edit.edit import change
from napari_covseg.edit.hu_range import in_range, limit
from napari_covseg.errors import CovsegError


def test_presets() -> None:
    assert PRESETS == {
        "ground-glass": HuRange(-800, -500),
        "consolidation": HuRange(-300, 50),
        "effusion": HuRange(0, 50),
    }
    assert str(PRESETS["ground-glass"]) == "−800 to −500 HU"


def test_both_ends_are_inside() -> None:
    hu = np.array([[-801, -800, -600], [-500, -499, 32767]], np.int16)
    assert in_range(hu, HuRange(-800, -500)).tolist() == [[False, True, True], [True, False, False]]
    assert in_range(hu, HuRange(-600, -600)).sum() == 1


def test_a_range_that_is_the_wrong_way_round_is_refused() -> None:
    with pytest.raises(CovsegError, match="lower end has to come first"):
        HuRange(-500, -800)


def test_a_stroke_is_cut_to_the_range() -> None:
    voxels = np.arange(-850, -490, 10, dtype=np.int16).reshape(1, 6, 6)
    labels = np.zeros(voxels.shape, np.uint8)
    stroke = change(labels, (slice(0, 1), slice(0, 6), slice(0, 6)), np.full_like(labels, 2), "brush")
    kept = stroke.only(limit(stroke.index, voxels, PRESETS["ground-glass"]))
    assert len(kept) == 31
    kept.apply(labels)
    np.testing.assert_array_equal(labels == 2, (voxels >= -800) & (voxels <= -500))
