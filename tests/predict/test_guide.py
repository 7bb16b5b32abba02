"""Corrected slices guide those around them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from scipy import ndimage

from napari_covseg.models.file import Model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.guide import Guide, Motion, likeness
from napari_covseg.predict.labelling import Labeller, SlicePrediction
from napari_covseg.scans.appearance import Appearance

SIZE = 40


def disc(radius: float, x: int = 20, value: int = 1) -> np.ndarray:
    rows, columns = np.mgrid[:SIZE, :SIZE]
    return ((rows - 20) ** 2 + (columns - x) ** 2 <= radius**2).astype(np.uint8) * np.uint8(value)


def said(z: int, *channels: np.ndarray) -> SlicePrediction:
    """A slice that is all lung."""
    lungs = np.full((SIZE, SIZE), 3, np.uint8)
    probabilities = np.stack([np.full((SIZE, SIZE), 255, np.uint8), *channels]).astype(np.uint8)
    return SlicePrediction(z, lungs, (channels[0] >= 128).astype(np.uint8), probabilities)


def beside(
    model: Model, predicted: SlicePrediction, corrected: dict[int, np.ndarray], *how, **more
) -> SlicePrediction:
    """A slice as it is labelled beside corrected ones."""
    picture = Appearance("grey", contrast="lung window")
    labeller = Labeller(lambda z: np.zeros((SIZE, SIZE), np.int16), Ensemble((model,)), picture, None, {})
    return labeller.guided(predicted, Guide(corrected, model.card, *how, **more))


@pytest.fixture
def one_lesion(make_model: Callable[..., Model]) -> Model:
    return make_model(lungs=lambda slices: slices, lesion=lambda slices: slices)


UNSURE = np.full((SIZE, SIZE), 100, np.uint8)


def test_a_neighbour_decides_where_the_model_is_unsure(one_lesion: Model) -> None:
    guided = beside(one_lesion, said(5, UNSURE), {4: disc(8)})
    assert np.count_nonzero(guided.lesions ^ disc(8)) < 0.1 * disc(8).sum()


def test_a_sure_model_far_away_is_not_overruled(one_lesion: Model) -> None:
    predicted = said(20, disc(8, 25, 255))
    for corrected in ({4: disc(5)}, {}):
        assert np.array_equal(beside(one_lesion, predicted, corrected).lesions, predicted.lesions)


def test_the_say_falls_with_distance_and_only_the_nearest_on_each_side_have_one(one_lesion: Model) -> None:
    guide = Guide({0: disc(1), 2: disc(1), 8: disc(1), 9: disc(1)}, one_lesion.card)
    near = guide.near(4)
    assert sorted(near) == [2, 8]
    assert near[2] > near[8] > 0
    assert not Guide({0: disc(1)}, one_lesion.card).near(60)
    assert guide.near(2) == {}  # a person has said all of it


def test_where_nothing_moves_nothing_is_lost_on_the_way(one_lesion: Model) -> None:
    rows = 1000 * np.random.default_rng(0).random((SIZE, SIZE))
    whole = {0: np.ones((SIZE, SIZE), np.uint8)}
    still, carried = (
        Guide(whole, one_lesion.card, motion=how) for how in (None, Motion(lambda z: rows, "grey"))
    )
    for z in (1, 2, 3):
        probability = said(z, np.full((SIZE, SIZE), 3, np.uint8)).probabilities
        assert probability is not None
        np.testing.assert_allclose(carried(z, probability), still(z, probability), atol=1e-5)


@pytest.mark.parametrize(("side", "smaller"), [(256, 256), (257, 129), (512, 256), (513, 171)])
def test_motion_is_measured_on_at_most_256_pixels(side: int, smaller: int) -> None:
    motion = Motion(lambda z: np.zeros((side, 40), np.int16), "HU")
    assert motion.small(np.zeros((side, 40), np.float32)).shape[0] == smaller


def test_outlines_move_with_the_picture(one_lesion: Model) -> None:
    texture = np.random.default_rng(0).normal(size=(SIZE, SIZE + 20))
    texture = ndimage.gaussian_filter(texture, 2)
    scan = np.stack([1000 * texture[:, 2 * z : 2 * z + SIZE] for z in range(5)]).astype(np.int16)
    motion = Motion(scan.__getitem__, "grey")  # to the left, 2 pixels a slice
    still, moving = (Guide({0: disc(6, 24)}, one_lesion.card, 1.0, motion=how) for how in (None, motion))
    for order in ([3, 1, 2], [1, 2, 3]):  # from the slice on screen outwards
        for z in order:
            wanted = disc(6, 24 - 2 * z)
            probability = said(z, UNSURE).probabilities
            wrong = [
                np.count_nonzero((guide(z, probability)[1] >= 0.5) ^ (wanted > 0))
                for guide in (still, moving)
            ]
            assert wrong[1] < 0.5 * wrong[0]
        moving = Guide({0: disc(6, 24)}, one_lesion.card, 1.0, motion=motion)


def test_corrected_slices_stay_as_they_are(one_lesion: Model) -> None:
    predicted = said(4, UNSURE)
    assert beside(one_lesion, predicted, {4: disc(8), 5: disc(8)}) is predicted


def test_findings_stay_in_the_lungs(one_lesion: Model) -> None:
    predicted = said(5, UNSURE)
    outside = dataclasses.replace(predicted, lungs=np.zeros_like(predicted.lungs))
    assert not beside(one_lesion, outside, {4: disc(8)}).lesions.any()


def test_each_label_guides_its_own_channel(make_model: Callable[..., Model]) -> None:
    model = make_model(
        lungs=lambda slices: slices, ground_glass=lambda slices: slices, consolidation=lambda slices: slices
    )
    corrected = disc(8, 12, 2) + disc(8, 30, 3)
    guided = beside(model, said(5, UNSURE, UNSURE), {4: corrected})
    assert guided.lesions[20, 12] == 2
    assert guided.lesions[20, 30] == 3
    assert guided.lesions[2, 2] == 0


def test_an_empty_and_a_full_slice_guide_too(one_lesion: Model) -> None:
    assert not beside(one_lesion, said(5, UNSURE), {4: disc(0, -9)}).lesions.any()
    assert beside(one_lesion, said(5, UNSURE), {4: np.ones((SIZE, SIZE), np.uint8)}).lesions.all()


def test_without_probabilities_it_says_so(one_lesion: Model) -> None:
    with pytest.raises(ValueError, match="slice 5 has no probabilities"):
        beside(one_lesion, dataclasses.replace(said(5, UNSURE), probabilities=None), {4: disc(8)})


def test_the_edge_is_as_wide_in_mm_on_any_grid(one_lesion: Model) -> None:
    """Beside the outline a neighbour has less of a say; on fine pixels over more of them."""
    sure = np.full((SIZE, SIZE), 5, np.uint8)
    fine = beside(one_lesion, said(5, sure), {4: disc(12)}, 0.7, (0.5, 0.5)).lesions.sum()
    coarse = beside(one_lesion, said(5, sure), {4: disc(12)}, 0.7, (2.0, 2.0)).lesions.sum()
    assert 0 < fine < coarse


def test_slices_that_are_alike_say_more(one_lesion: Model) -> None:
    thin, thick = (Guide({0: disc(1)}, one_lesion.card, value).near(1)[0] for value in (0.95, 0.4))
    assert thin == pytest.approx(8)
    assert thick == pytest.approx(4)
    assert likeness(np.stack([disc(8), disc(8, value=2)])) == 1
    assert likeness(np.stack([disc(3, 8), disc(3, 30)])) == 0
    assert likeness(np.zeros((3, SIZE, SIZE), np.uint8)) == 0.7


def test_a_lesion_that_nobody_told_apart_guides_both_and_the_likelier_names_it(
    make_model: Callable[..., Model],
) -> None:
    model = make_model(ground_glass=lambda slices: slices, consolidation=lambda slices: slices)
    assert model.card.outputs == ("ground-glass", "consolidation")
    rather = np.full((SIZE, SIZE), 60, np.uint8)
    probabilities = np.stack([rather, UNSURE]).astype(np.uint8)
    predicted = SlicePrediction(5, np.zeros((SIZE, SIZE), np.uint8), 0 * rather, probabilities)
    guided = beside(model, predicted, {4: disc(8, value=1)}).lesions
    assert set(np.unique(guided)) == {0, 3}
    assert np.count_nonzero((guided > 0) ^ (disc(8) > 0)) < 0.15 * disc(8).sum()
