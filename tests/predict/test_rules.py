"""Each rule does something that is not done without it, and without all of them nothing is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch

from napari_covseg.labels import lesion
from napari_covseg.models.file import Model
from napari_covseg.predict.ensemble import Ensemble, PreparedSlice
from napari_covseg.predict.labelling import Labeller, Thresholded
from napari_covseg.predict.options import RULES, Rule
from napari_covseg.scans.appearance import HOUNSFIELD

Slice = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8], npt.NDArray[np.uint8]]
LESION = lesion("lesion").value


def chest() -> Slice:
    """HU, lungs and no finding; pixels of 1.4 mm, two lungs of 112 by 168 mm."""
    voxels = np.full((160, 200), 40, np.int16)
    lungs = np.zeros(voxels.shape, np.uint8)
    lungs[:120, :80] = lungs[:120, 120:] = 3
    voxels[lungs > 0] = -870
    return voxels, lungs, np.zeros_like(lungs)


def with_fat() -> Slice:
    voxels, lungs, lesions = chest()
    voxels[140:156, 60:100], lungs[140:156, 60:100] = -95, 3
    return voxels, lungs, lesions


def with_finding(rows: slice, columns: slice, level: int) -> Slice:
    voxels, lungs, lesions = chest()
    voxels[rows, columns], lesions[rows, columns] = level, LESION
    return voxels, lungs, lesions


def with_hole() -> Slice:
    voxels, lungs, lesions = chest()
    lungs[30:40, 30:40] = 0
    return voxels, lungs, lesions


def with_speck() -> Slice:
    voxels, lungs, lesions = chest()
    lungs[140:144, 60:64] = 3
    return voxels, lungs, lesions


SHOWS: dict[Rule, Slice] = {
    "gas or fat": with_fat(),
    "vessels": with_finding(slice(20, 60), slice(20, 23), 0),
    "hilum": with_finding(slice(50, 80), slice(60, 66), -300),
    "fat findings": with_finding(slice(20, 60), slice(10, 50), -100),
    "small lungs": with_speck(),
    "holes": with_hole(),
    "small findings": with_finding(slice(30, 31), slice(30, 31), -300),
    "inside": with_finding(slice(20, 60), slice(95, 105), 40),
}


@pytest.fixture
def labeller(make_model: Callable[..., Model]) -> Labeller:
    model = make_model(lungs=torch.zeros_like, lesion=torch.zeros_like)
    return Labeller(lambda z: np.zeros((1, 1), np.int16), Ensemble((model,)), HOUNSFIELD, (1.4, 1.4), {})


def cleaned(labeller: Labeller, rules: frozenset[Rule], shown: Slice) -> tuple[np.ndarray, np.ndarray]:
    voxels, lungs, lesions = shown
    given = Thresholded(lungs[None], lesions[None], [None], [None], [0.0])
    [done] = replace(labeller, rules=rules).label([PreparedSlice(0, voxels, ())], given)
    return done.lungs > 0, done.lesions


@pytest.mark.parametrize("rule", sorted(RULES))
def test_a_rule_does_what_is_not_done_without_it(labeller: Labeller, rule: Rule) -> None:
    _, lungs, lesions = SHOWS[rule]
    without = cleaned(labeller, frozenset(), SHOWS[rule])
    assert np.array_equal(without[0], lungs > 0) and np.array_equal(without[1], lesions)
    alone = cleaned(labeller, frozenset({rule}), SHOWS[rule])
    assert not (np.array_equal(alone[0], lungs > 0) and np.array_equal(alone[1], lesions))
    assert np.count_nonzero(alone[1]) in (0, np.count_nonzero(lesions))
