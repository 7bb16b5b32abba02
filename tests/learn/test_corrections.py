from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_covseg.cases.case import Review
from napari_covseg.errors import ModelError
from napari_covseg.labels import LESIONS
from napari_covseg.learn.corrections import as_said_by, check_whole, labelled_slices, targets_of
from napari_covseg.learn.slices import UNKNOWN, shrink
from napari_covseg.models.catalogue import find
from napari_covseg.models.preparation import Preparation, reorient
from napari_covseg.scans.appearance import Appearance

labels = arrays(np.uint8, (8, 8), elements=st.integers(0, 4))


@given(labels, labels)
def test_a_model_of_one_lesion_learns_all_that_lie_inside_the_lungs(
    lungs: np.ndarray, lesions: np.ndarray
) -> None:
    targets = targets_of(lungs, lesions, ("lungs", "lesion"), 8)
    assert np.array_equal(targets[0], lungs > 0)
    assert np.array_equal(targets[1], np.isin(lesions, [1, 2, 3]))


@given(labels)
def test_outputs_of_their_own_take_their_labels(lesions: np.ndarray) -> None:
    outputs = ("ground-glass", "lesion", "pleural effusion")
    targets = targets_of(lesions, lesions, outputs, 8)
    for target, values in zip(targets, ([2], [1, 3], [4]), strict=True):
        assert np.array_equal(target, np.isin(lesions, values))


@given(labels)
def test_a_label_that_a_model_cannot_say_counts_for_nothing(lesions: np.ndarray) -> None:
    targets = targets_of(lesions, lesions, ("lungs", "consolidation"), 8)
    assert np.array_equal(targets[0], lesions > 0)
    assert np.array_equal(targets[1] == 1, lesions == 3)
    assert np.array_equal(targets[1] == UNKNOWN, np.isin(lesions, (1, 2)))


def test_labels_are_mapped_to_what_a_model_says() -> None:
    drawn = np.arange(5, dtype=np.uint8)[None]
    card = find("unet-lungs-lesion").card
    assert as_said_by(card, drawn).tolist() == [[0, 1, 1, 1, 4]]
    named = replace(card, outputs=("ground-glass", "lesion"))
    assert as_said_by(named, drawn).tolist() == [[0, 1, 2, 1, 4]]
    assert as_said_by(replace(card, outputs=("consolidation",)), drawn) is drawn


@pytest.mark.parametrize(("shape", "size"), [((12, 16), 8), ((16, 16), 8), ((6, 8), 16), ((8, 8), 8)])
def test_masks_are_squared_as_slices_are(shape: tuple[int, int], size: int) -> None:
    mask = np.zeros(shape, bool)
    mask[: shape[0] // 2, : shape[1] // 2] = True
    small = shrink(mask, size)
    assert small.shape == (size, size)
    scale = size / max(shape)
    assert small.sum() == pytest.approx(mask.sum() * scale**2, rel=0.3)
    assert small[0, 0] and not small[-1, -1]


def test_the_labels_of_the_field_are_known() -> None:
    assert [label.name for label in LESIONS if label.inside_lungs] == [
        "lesion",
        "ground-glass",
        "consolidation",
    ]


def test_a_model_that_sees_a_part_of_the_slice_learns_nothing() -> None:
    card = find("unet-lungs-lesion").card
    check_whole(card)
    with pytest.raises(ModelError, match="cropped to the lungs and cannot learn"):
        check_whole(replace(card, preparation={**card.preparation, "crop": "lungs"}))


def test_a_lesion_that_was_not_told_apart_is_ground_glass_to_a_model_that_does() -> None:
    lesions = np.zeros((16, 16), np.uint8)
    lesions[2:6, 2:6], lesions[8:12, 2:6], lesions[8:12, 8:12] = 1, 2, 3
    outputs = ("lungs", "ground-glass", "consolidation")
    targets = targets_of(np.ones_like(lesions), lesions, outputs, 16)
    np.testing.assert_array_equal(targets[1], np.isin(lesions, [1, 2]))
    np.testing.assert_array_equal(targets[2] == 1, lesions == 3)
    np.testing.assert_array_equal(targets[2] == UNKNOWN, lesions == 1)


def test_it_learns_from_a_picture_as_run_shows_it() -> None:
    rng = np.random.default_rng(0)
    voxels = rng.integers(0, 256, (48, 60)).astype(np.int16)
    lesions = np.zeros(voxels.shape, np.uint8)
    lesions[10:20, 30:45] = 2
    appearance = Appearance("grey", contrast="lung window", cropped=True, turned=90, inverted=True)
    case = SimpleNamespace(
        id="a",
        intensity="grey",
        appearance=appearance,
        review=[Review.ACCEPTED],
        read_slice=lambda z: voxels,
        read_labels=lambda group, z: lesions if group == "lesions" else np.zeros_like(lesions),
    )
    card = find("covseg").card
    taught = labelled_slices(cast(Any, case), [0], card)
    preparation = Preparation.from_card(card.preparation)
    np.testing.assert_array_equal(taught.images[0], preparation(reorient(voxels, appearance), "grey"))
    drawn = taught.masks[0, card.outputs.index("ground-glass")] == 1
    # within its margin of 9 of 78 pixels, and turned with the slice
    scale = preparation.size / (60 + 18)
    rows, columns = np.flatnonzero(drawn.any(1)), np.flatnonzero(drawn.any(0))
    assert rows[[0, -1]] == pytest.approx([scale * (9 + 30), scale * (9 + 45)], abs=scale)
    assert columns[[0, -1]] == pytest.approx([scale * (9 + 48 - 20), scale * (9 + 48 - 10)], abs=scale)
