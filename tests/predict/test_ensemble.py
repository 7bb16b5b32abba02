"""Several opinions become one: of mirror images, of models, of models that crop to the lungs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from napari_covseg.errors import ModelError
from napari_covseg.models.file import Model
from napari_covseg.predict.ensemble import Ensemble, PreparedSlice, _span, infer, view
from napari_covseg.predict.labelling import SlicePrediction
from napari_covseg.predict.slices import SliceOrder, predict_slices
from napari_covseg.scans.appearance import Appearance

MakeModel = Callable[..., Model]
SHAPE = (48, 60)


def everywhere(slices: Tensor) -> Tensor:
    return torch.full_like(slices, 9.0)


def likely(probability: float) -> Callable[[Tensor], Tensor]:
    return lambda slices: torch.full_like(slices, float(torch.tensor(probability).logit()))


def right_half(slices: Tensor) -> Tensor:
    """Sure of the half with the higher columns, whatever the slice shows: wrong on mirror images."""
    out = torch.full_like(slices, -9.0)
    out[..., slices.shape[-1] // 2 :] = 9.0
    return out


def dark(slices: Tensor) -> Tensor:
    return (0.3 - slices) * 60


def bright(slices: Tensor) -> Tensor:
    return (slices - 0.75) * 60


def chest(z: int) -> npt.NDArray[np.int16]:
    """Two dark lungs in tissue, a bright spot in one; slice 0 has neither."""
    voxels = np.zeros(SHAPE, np.int16)
    if z:
        voxels[12:36, 10:26] = voxels[12:36, 34:50] = -850
        voxels[18:26, 12:20] = 900
    voxels[0, :2] = -1000, 1000
    return voxels


def predicted(model: Model | Ensemble, count: int = 1, **options: Any) -> list[SlicePrediction]:
    batches = predict_slices(chest, model, SliceOrder(count), **options)
    return sorted((one for batch in batches for one in batch), key=lambda one: one.z)


def probability(model: Model | Ensemble) -> npt.NDArray[np.uint8]:
    [only] = predicted(model, probabilities=True)
    assert only.probabilities is not None
    return only.probabilities[-1]


@pytest.mark.parametrize(
    ("tta", "passes"), [("card", 1), ("none", 1), ("lungs", 2), ("flip", 2), ("flips", 4)]
)
def test_mirror_images_are_turned_back_and_averaged(make_model: MakeModel, tta: Any, passes: int) -> None:
    size = 64 if tta == "lungs" else 60  # the second look is stretched to a multiple of 32
    model = make_model(size, lungs=everywhere, lesion=right_half)
    said = probability(Ensemble((model,), tta))
    assert len(model.network.batches) == passes
    if passes == 1:
        assert (said[:, 30:] == 255).all() and (said[:, :30] == 0).all()
    else:
        np.testing.assert_allclose(said, 127.5, atol=0.51)
    # what does not depend on the side stays as it is
    plain = make_model(size, lungs=dark, lesion=bright)
    np.testing.assert_allclose(probability(Ensemble((plain,), tta)), probability(plain), atol=1.01)


def test_a_second_look_is_only_at_the_lungs(make_model: MakeModel) -> None:
    shapes: list[tuple[int, ...]] = []

    def seen(slices: Tensor) -> Tensor:
        shapes.append(tuple(slices.shape[2:]))
        return right_half(slices)

    def lungs(slices: Tensor) -> Tensor:
        out = torch.full_like(slices, -9.0)
        out[..., 40:185, :] = 9.0
        return out

    model = make_model(256, lungs=lungs, lesion=seen)
    said = probability(Ensemble((model,), "lungs"))  # of 48 x 60, squared below to 60 x 60
    assert shapes == [(256, 256), (192, 256)]  # a margin of 8 on either side, then to a multiple of 32
    assert (said[:6, 32:] == 255).all() and (said[:6, :28] == 0).all()  # one look only
    # mirrored, but not turned upside down; where its 161 rows are stretched to 192, what is even stays
    np.testing.assert_allclose(said[9:44, 12:48], 127.5, atol=0.51)
    card = replace(model.card, tta="lungs")
    np.testing.assert_array_equal(probability(replace(model, card=card)), said)


@pytest.mark.parametrize(
    ("size", "rows", "sides"),
    [
        (256, slice(100, 120), (128, 256)),  # no shape of its own for the tip of a lung
        (256, slice(200, 256), (128, 256)),  # at the edge
        (64, slice(20, 30), (64, 64)),
    ],
)
def test_a_second_look_has_few_shapes(
    make_model: MakeModel, size: int, rows: slice, sides: tuple[int, int]
) -> None:
    shapes: list[tuple[int, ...]] = []

    def lungs(slices: Tensor) -> Tensor:
        shapes.append(tuple(slices.shape[2:]))
        out = torch.full_like(slices, -9.0)
        out[..., rows, :] = 9.0
        return out

    probability(Ensemble((make_model(size, lungs=lungs, lesion=bright),), "lungs"))
    assert shapes[1] == sides


def test_a_stretched_look_lies_where_it_was_taken(make_model: MakeModel) -> None:
    looks: list[Tensor] = []

    def rows(slices: Tensor) -> Tensor:  # says what it sees
        looks.append(slices[0, 0])
        return torch.logit(slices.clamp(0.02, 0.98))

    def lungs(slices: Tensor) -> Tensor:
        out = torch.full_like(slices, -9.0)
        out[..., 40:180, 60:210] = 9.0  # 156 x 166 with its margin, stretched to 160 x 192
        return out

    def steady(z: int) -> npt.NDArray[np.int16]:
        return np.add.outer(np.arange(256) * 3, np.arange(256)).astype(np.int16)

    model = make_model(256, lungs=lungs, lesion=rows)
    found = []
    choices: tuple[Any, ...] = ("none", "lungs")
    for tta in choices:
        ensemble = Ensemble((model,), tta)
        (one,) = next(iter(predict_slices(steady, ensemble, SliceOrder(1), probabilities=True)))
        assert one.probabilities is not None
        found.append(one.probabilities[-1].astype(int))
    assert np.abs(found[0] - found[1])[2:-2].max() <= 2  # of 255: a row is 0.75
    again = looks[-1]
    assert again[0].mean() < again[-1].mean() and again[:, 0].mean() > again[:, -1].mean()  # mirrored only


def test_without_lungs_there_is_no_second_look(make_model: MakeModel) -> None:
    model = make_model(64, lungs=lambda slices: torch.full_like(slices, -9.0), lesion=bright)
    assert not predicted(Ensemble((model,), "lungs"))[0].lungs.any()
    assert len(model.network.batches) == 1
    blind = make_model(64, lesion=bright)
    assert Ensemble((blind,), "lungs").members == 1


def test_models_are_averaged_on_the_grid_of_the_scan(make_model: MakeModel) -> None:
    models = tuple(
        make_model(size, lungs=everywhere, lesion=likely(p)) for size, p in ((32, 0.2), (64, 0.8), (60, 0.5))
    )
    assert np.unique(probability(Ensemble(models))).tolist() == [128]  # 0.5 * 255, rounded
    apart = make_model(32, lungs=everywhere, lesion=bright), make_model(96, lungs=everywhere, lesion=bright)
    mean = np.mean([probability(one).astype(float) for one in apart], 0)
    np.testing.assert_allclose(probability(Ensemble(apart)), mean, atol=1.01)


def test_the_threshold_is_the_mean_of_the_cards(make_model: MakeModel) -> None:
    low, high = (make_model(32, lungs=everywhere, lesion=likely(p)) for p in (0.3, 0.5))
    low = replace(low, card=replace(low.card, thresholds={"lungs": 0.5, "lesion": 0.2}))
    assert predicted(Ensemble((low, high)))[0].lesions.all()  # 0.4 is above 0.35
    assert not predicted(Ensemble((low, high)), thresholds={"lesion": 0.45})[0].lesions.any()


def test_models_that_find_different_things_are_refused(make_model: MakeModel) -> None:
    with pytest.raises(ModelError, match=r"\(lungs, lesion\) and .*\(lesion\) find different things"):
        Ensemble((make_model(lungs=everywhere, lesion=bright), make_model(lesion=bright)))


def test_the_spread_of_opinions(make_model: MakeModel) -> None:
    one, two = (make_model(60, lungs=everywhere, lesion=likely(p)) for p in (0.1, 0.7))

    def unsure(ensemble: Ensemble) -> npt.NDArray[np.uint8]:
        said = predicted(ensemble)[0].uncertainty
        assert said is not None and said.shape == SHAPE and said.dtype == np.uint8
        return said

    assert np.unique(unsure(Ensemble((one, two), uncertainty=True))).tolist() == [153]  # 2 * 0.3 * 255
    assert not unsure(Ensemble((one, one), uncertainty=True)).any()
    assert not unsure(Ensemble((one,), "flips", uncertainty=True)).any()
    sided = make_model(60, lungs=everywhere, lesion=right_half)
    assert unsure(Ensemble((sided,), "flip", uncertainty=True)).min() >= 254
    # inside of each model and between them: sqrt(0.25 + 0) and sqrt(0 + 0.25) both
    both = unsure(Ensemble((sided, make_model(60, lungs=everywhere, lesion=likely(0.5))), "flip", None, True))
    np.testing.assert_allclose(both, 255 * 2 * np.sqrt(0.125), atol=1)
    assert predicted(one)[0].uncertainty is None


def test_one_opinion_alone_is_as_unsure_as_its_entropy(make_model: MakeModel) -> None:
    for p, bits in ((0.5, 1.0), (0.11, 0.5), (1e-6, 0.0)):
        model = make_model(60, lungs=everywhere, lesion=likely(p))
        [only] = predicted(Ensemble((model,), uncertainty=True))
        assert only.uncertainty is not None
        np.testing.assert_allclose(only.uncertainty, 255 * bits, atol=2)


def test_of_a_model_of_lungs_alone_it_is_the_lungs(make_model: MakeModel) -> None:
    [only] = predicted(Ensemble((make_model(60, lungs=likely(0.5)),), uncertainty=True))
    assert only.uncertainty is not None
    np.testing.assert_allclose(only.uncertainty, 255, atol=2)


def test_the_entropy_of_a_slice_is_that_of_all_models_together(make_model: MakeModel) -> None:
    def tall(z: int) -> npt.NDArray[np.int16]:
        return np.zeros((90, 40), np.int16)

    def entropy(*chances: float) -> float:
        models = tuple(make_model(45, lungs=everywhere, lesion=likely(p)) for p in chances)
        [[only]] = predict_slices(tall, Ensemble(models), SliceOrder(1))
        return only.entropy

    assert entropy(0.5) == pytest.approx(90 * 90, rel=1e-3)  # a bit a pixel, of the square around the slice
    assert entropy(0.2, 0.8) == pytest.approx(90 * 40, rel=1e-3)  # on the scan's own grid


def test_slices_of_one_batch_come_back_each_to_its_place(make_model: MakeModel) -> None:
    cropped = make_model(96, crop="lungs", lungs=everywhere, lesion=bright)
    ensemble = Ensemble((cropped,), lungs_from=make_model(60, lungs=dark))
    slices = []
    for z, left in ((1, 10), (2, 0), (1, 34), (1, 20)):
        lungs = np.zeros(SHAPE, np.uint8)
        lungs[12:36, left : left + 16] = left > 0
        seen = view(cropped, chest(z), Appearance("HU"), lungs)
        slices.append(PreparedSlice(z, chest(z), (seen,), lungs))
    together = infer(ensemble, slices).probability
    assert together.shape == (4, 2, *SHAPE) and not together[1].any()
    for row in (0, 2, 3):
        torch.testing.assert_close(together[row], infer(ensemble, slices[row : row + 1]).probability[0])
    assert together[0, 1].any() and not together[2, 1, :, :24].any()


@pytest.mark.parametrize(
    ("first", "last", "span"),
    [
        (40, 179, (32, 188)),  # a margin of 8
        (3, 250, (0, 256)),
        (100, 119, (46, 174)),  # at least 128, around the middle
        (1, 9, (0, 128)),
        (250, 255, (128, 256)),
    ],
)
def test_where_a_second_look_is_taken(first: int, last: int, span: tuple[int, int]) -> None:
    found = torch.zeros(256, dtype=torch.bool)
    found[[first, last]] = True
    assert _span(found) == slice(*span)


def test_small_findings_are_dropped(make_model: MakeModel) -> None:
    model = make_model(60, lungs=everywhere, lesion=bright)
    assert np.count_nonzero(predicted(model, 2)[1].lesions) == 64
    assert predicted(model, 2, min_pixels=64)[1].lesions.any()
    assert not predicted(model, 2, min_pixels=65)[1].lesions.any()


# --- cropped to the lungs ---------------------------------------------------------------


def test_a_crop_sees_the_lungs_alone_and_comes_back_to_its_place(make_model: MakeModel) -> None:
    seen: list[Tensor] = []

    def keep(slices: Tensor) -> Tensor:
        seen.append(slices)
        return bright(slices)

    finder = make_model(60, lungs=dark)
    cropped = make_model(96, crop="lungs", lesion=keep)
    empty, full = predicted(Ensemble((cropped,), lungs_from=finder, uncertainty=True), 2)
    assert sum(len(batch) for batch in seen) == 1  # without lungs, no pass
    assert not empty.lesions.any() and empty.lungs.shape == SHAPE
    assert empty.uncertainty is not None and not empty.uncertainty.any()
    # rows 2 to 45 and columns 0 to 59 are the lungs and ten pixels around them
    assert len(seen[-1][0, 0, -8:].unique()) == 1  # below, padded to a square
    found = np.argwhere(full.lesions)
    assert np.abs(found.min(0) - [18, 12]).max() <= 1 and np.abs(found.max(0) - [25, 19]).max() <= 1
    # and the lungs are those of the first pass
    np.testing.assert_array_equal(full.lungs, predicted(finder, 2)[1].lungs)


def test_a_crop_beside_a_model_of_whole_slices(make_model: MakeModel) -> None:
    finder = make_model(60, lungs=dark, lesion=bright)
    cropped = make_model(96, crop="lungs", lungs=dark, lesion=bright)
    _, full = predicted(Ensemble((finder, cropped), lungs_from=finder), 2, probabilities=True)
    assert full.probabilities is not None
    assert full.probabilities[1, 22, 16] == 255
    assert full.probabilities[1, 30, 30] == 0


def test_somebody_has_to_find_the_lungs(make_model: MakeModel) -> None:
    cropped = make_model(crop="lungs", lungs=dark, lesion=bright)
    with pytest.raises(ModelError, match="name a model that finds them"):
        list(predict_slices(chest, cropped, SliceOrder(1)))
    for finder in (cropped, make_model(lesion=bright)):
        with pytest.raises(ModelError, match="does not find lungs on whole slices"):
            Ensemble((cropped,), lungs_from=finder)
