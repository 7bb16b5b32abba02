"""Ranges of HU include both ends."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.hu_range import PRESETS, HuRange, in_range
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
