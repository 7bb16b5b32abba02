"""Slices come out nearest first, in the scan's own grid, and memory that runs out loses none."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor

from napari_covseg.errors import JobError
from napari_covseg.labels import lesion
from napari_covseg.models.file import Model
from napari_covseg.models.forward import restore
from napari_covseg.models.preparation import Placement
from napari_covseg.predict.labelling import SlicePrediction
from napari_covseg.predict.slices import SliceOrder, Workers, default_batch, predict_slices
from napari_covseg.scans.appearance import HOUNSFIELD, PREPARED, Appearance

MakeModel = Callable[..., Model]
SQUARE = (slice(140, 371), slice(101, 290))


def everywhere(slices: Tensor) -> Tensor:
    return torch.full_like(slices, 9.0)


def bright(slices: Tensor) -> Tensor:
    return (slices - 0.5) * 40


def likely(probability: float) -> Callable[[Tensor], Tensor]:
    return lambda slices: torch.full_like(slices, float(torch.tensor(probability).logit()))


def noise(z: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(z).integers(-1000, 400, (40, 40)).astype(np.int16)


def flat(batches: list[list[SlicePrediction]]) -> list[int]:
    return [slice_.z for batch in batches for slice_ in batch]


def test_one_slice_first_then_batches_outwards(make_model: MakeModel) -> None:
    model = make_model(lungs=everywhere)
    batches = list(predict_slices(noise, model, SliceOrder(10, 4), batch=3))
    assert [[s.z for s in batch] for batch in batches] == [[4], [5, 3, 6], [2, 7, 1], [8, 0, 9]]
    assert model.network.batches == [1, 3, 3, 3]


def test_scrolling_away_moves_what_comes_next(make_model: MakeModel) -> None:
    order = SliceOrder(100, 0)
    batches = predict_slices(noise, make_model(lungs=everywhere), order, batch=2)
    came = flat([next(batches), next(batches)])
    order.refocus(80)
    while (then := flat([next(batches)])) != [80, 81]:
        came += then  # already under way
    assert came == list(range(len(came)))
    with Workers(torch.device("cpu")) as workers:
        assert len(came) <= 3 + 2 * (workers.count + 1)
    assert sorted([*came, 80, 81, *flat(list(batches))]) == list(range(100))


def test_an_empty_scan_is_no_fault(make_model: MakeModel) -> None:
    assert list(predict_slices(noise, make_model(lungs=everywhere), SliceOrder(0))) == []


def test_closing_stops_reading(make_model: MakeModel) -> None:
    read: list[int] = []

    def reading(z: int) -> npt.NDArray[np.int16]:
        read.append(z)
        return noise(z)

    batches = predict_slices(reading, make_model(lungs=everywhere), SliceOrder(50), batch=2)
    next(batches)
    batches.close()
    under_way = [thread for thread in threading.enumerate() if thread.name.startswith("covseg-slices")]
    assert under_way
    for thread in under_way:
        thread.join(10)
        assert not thread.is_alive()
    assert len(read) <= 1 + 2 * (len(under_way) + 1)


def test_a_slice_that_cannot_be_read_is_told(make_model: MakeModel) -> None:
    def failing(z: int) -> npt.NDArray[np.int16]:
        if z == 3:
            raise OSError("disk gone")
        return noise(z)

    batches = predict_slices(failing, make_model(lungs=everywhere), SliceOrder(9), batch=1)
    assert flat([next(batches), next(batches), next(batches)]) == [0, 1, 2]
    with pytest.raises(OSError, match="disk gone"):
        next(batches)


@pytest.mark.parametrize("clahe", [0.0, 7.0])
def test_the_mask_lies_on_what_is_bright(make_model: MakeModel, clahe: float) -> None:
    """At 512 x 512, through preparation, network and back, an outline moves by a pixel at most."""
    voxels = np.full((512, 512), -800, np.int16)
    voxels[SQUARE] = 900
    truth = voxels > 0
    model = make_model(256, clahe, lungs=everywhere, lesion=bright)
    [[predicted]] = predict_slices(lambda z: voxels, model, SliceOrder(1), spacing=(0.7, 0.7))
    assert predicted.lesions.shape == (512, 512)
    assert predicted.lesions.dtype == np.uint8
    found = np.argwhere(predicted.lesions)
    low, high = np.argwhere(truth).min(0), np.argwhere(truth).max(0)
    assert np.abs(found.min(0) - low).max() <= 1
    assert np.abs(found.max(0) - high).max() <= 1
    assert np.count_nonzero((predicted.lesions > 0) != truth) < 2 * (231 + 189)
    assert set(np.unique(predicted.lesions)) == {0, lesion("lesion").value}


@pytest.mark.parametrize("shape", [(300, 512), (512, 300), (97, 131), (33, 33)])
def test_slices_come_back_in_the_shape_of_the_scan(make_model: MakeModel, shape: tuple[int, int]) -> None:
    voxels = np.full(shape, -800, np.int16)
    box = tuple(slice(n // 4, n // 4 + n // 2) for n in shape)
    voxels[box] = 900
    model = make_model(128, lungs=everywhere, lesion=bright)
    [[predicted]] = predict_slices(
        lambda z: voxels, model, SliceOrder(1), spacing=(1.0, 1.0), probabilities=True
    )
    assert predicted.lungs.shape == predicted.lesions.shape == shape
    assert predicted.probabilities is not None
    assert predicted.probabilities.shape == (2, *shape)
    found = np.argwhere(predicted.lesions)
    coarse = max(1, max(shape) / 128)
    assert np.abs(found.min(0) - [edge.start for edge in box]).max() <= coarse
    assert np.abs(found.max(0) + 1 - [edge.stop for edge in box]).max() <= coarse


def test_probabilities_are_resized_and_not_labels() -> None:
    step = torch.zeros(1, 1, 4, 4)
    step[..., 2:] = 1
    restored = restore(step, Placement.whole((8, 6)))
    assert restored.shape == (1, 1, 8, 6)
    torch.testing.assert_close(restored[0, 0, 0], torch.tensor([0, 0, 0, 0.25, 0.75, 1]))
    torch.testing.assert_close(restore(step, Placement.whole((4, 4))), step)


def test_probabilities_on_request(make_model: MakeModel) -> None:
    model = make_model(lungs=everywhere, lesion=likely(0.25))
    [[without]] = predict_slices(noise, model, SliceOrder(1))
    [[predicted]] = predict_slices(noise, model, SliceOrder(1), probabilities=True)
    assert without.probabilities is None
    assert predicted.probabilities is not None
    assert predicted.probabilities.dtype == np.uint8
    assert predicted.probabilities.shape == (2, 40, 40)
    assert np.unique(predicted.probabilities[0]).tolist() == [255]
    assert np.unique(predicted.probabilities[1]).tolist() == [64]  # 0.25 * 255, rounded


def test_doubt_is_counted_for_the_pixels_of_the_scan(make_model: MakeModel) -> None:
    def doubt(probability: float, shape: tuple[int, int]) -> float:
        model = make_model(lungs=everywhere, lesion=likely(probability))
        voxels = np.zeros(shape, np.int16)
        return next(predict_slices(lambda z: voxels, model, SliceOrder(1)))[0].entropy

    assert doubt(0.5, (40, 40)) == pytest.approx(40 * 40, rel=0.001)
    assert doubt(0.5, (80, 80)) == pytest.approx(80 * 80, rel=0.001)
    assert doubt(1 - 1e-6, (40, 40)) == pytest.approx(0, abs=0.1)
    only_lungs = make_model(lungs=everywhere)
    assert np.isnan(next(predict_slices(noise, only_lungs, SliceOrder(1)))[0].entropy)


def test_thresholds_of_the_card_or_of_the_reader(make_model: MakeModel) -> None:
    model = make_model(lungs=everywhere, lesion=likely(0.4))

    def painted(thresholds: dict[str, float] | None) -> bool:
        [[predicted]] = predict_slices(noise, model, SliceOrder(1), thresholds=thresholds)
        assert predicted.lungs.all()
        return bool(predicted.lesions.all())

    assert not painted(None)
    assert painted({"lesion": 0.3})
    assert not painted({"lesion": 0.41})
    assert model.card.thresholds == {"lungs": 0.5, "lesion": 0.5}


def test_findings_go_with_the_lungs_that_are_none(make_model: MakeModel) -> None:
    voxels = np.full((256, 256), -850, np.int16)
    voxels[:, 128:] = -95  # fat

    def apart(slices: Tensor) -> Tensor:
        logits = everywhere(slices)
        logits[..., 28:36] = -9.0
        return logits

    def lesions(seen: Appearance) -> npt.NDArray[np.uint8]:
        model = make_model(lungs=apart, lesion=everywhere)
        return next(predict_slices(lambda z: voxels, model, SliceOrder(1), appearance=seen))[0].lesions

    assert lesions(PREPARED)[:, :108].all() and lesions(PREPARED)[:, 148:].all()  # pictures have no HU
    assert lesions(HOUNSFIELD)[:, :108].all() and not lesions(HOUNSFIELD)[:, 148:].any()


def test_the_likeliest_finding_names_the_voxel(make_model: MakeModel) -> None:
    ours = {"ground_glass": likely(0.7), "consolidation": likely(0.8), "pleural_effusion": likely(0.6)}
    model = make_model(lungs=everywhere, **ours)
    assert model.card.outputs == ("lungs", "ground-glass", "consolidation", "pleural effusion")

    def value(**thresholds: float) -> int:
        levels = {name.replace("_", "-"): level for name, level in thresholds.items()}
        [[predicted]] = predict_slices(noise, model, SliceOrder(1), thresholds=levels)
        [only] = np.unique(predicted.lesions)
        return int(only)

    assert value() == lesion("consolidation").value
    assert value(lesion=0.9) == lesion("consolidation").value  # 0.94 that it is one of them
    assert value(lesion=0.95) == lesion("pleural effusion").value


def test_pictures_are_labelled_upright_and_labels_lie_as_the_picture(make_model: MakeModel) -> None:
    upright = np.zeros((200, 256), np.int16)
    upright[20:60, 30:90] = 255
    model = make_model(lungs=everywhere, lesion=bright)
    turned = {0: upright, 90: np.rot90(upright, 1), 270: np.rot90(upright, 3)}
    for degrees, picture in turned.items():
        for inverted in (False, True):
            for cropped in (False, True):
                seen = replace(PREPARED, turned=degrees, inverted=inverted, cropped=cropped)
                stored = np.ascontiguousarray(255 - picture if inverted else picture)
                [[predicted]] = predict_slices(
                    lambda z, stored=stored: stored, model, SliceOrder(1), appearance=seen
                )
                assert predicted.lesions.shape == picture.shape
                both = 2 * np.sum((predicted.lesions > 0) & (picture > 0))
                assert (
                    both / (np.sum(predicted.lesions > 0) + np.sum(picture > 0)) > 0.94
                )  # the outline alone


def test_a_model_without_lungs_still_finds_lesions(make_model: MakeModel) -> None:
    [[predicted]] = predict_slices(noise, make_model(lesion=everywhere), SliceOrder(1))
    assert not predicted.lungs.any()
    assert predicted.lesions.all()


def test_pictures_are_prepared_as_pictures(make_model: MakeModel) -> None:
    """An HU slice is equalised, a picture is not: the same numbers give another input."""
    seen: list[Tensor] = []

    def keep(slices: Tensor) -> Tensor:
        seen.append(slices)
        return slices

    model = make_model(64, 7.0, lungs=keep)
    for look in (HOUNSFIELD, PREPARED, replace(PREPARED, contrast="lung window")):
        list(predict_slices(noise, model, SliceOrder(1), appearance=look))
        prepared = model.preparation(noise(0), look.intensity, equalised=look is PREPARED)
        expected = torch.from_numpy(prepared) / 255
        torch.testing.assert_close(seen[-1][0, 0], expected)
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried 9"
        ),
        MemoryError(),
    ],
    ids=["device", "allocator", "python"],
)
def test_memory_that_runs_out_halves_the_batch_and_loses_nothing(
    make_model: MakeModel, error: Exception
) -> None:
    def small_only(slices: Tensor) -> Tensor:
        if len(slices) > 2:
            raise error
        return everywhere(slices)

    notices: list[str] = []
    model = make_model(lungs=small_only)
    batches = list(predict_slices(noise, model, SliceOrder(20), batch=8, notice=notices.append))
    assert flat(batches) == list(range(20))
    assert [text.split("going on with ")[1] for text in notices] == [
        "4 slices at a time.",
        "2 slices at a time.",
    ]
    assert max(model.network.batches[-4:]) == 2  # and does not try again what failed


def test_a_single_slice_that_does_not_fit_is_a_job_error(make_model: MakeModel) -> None:
    def never(slices: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(JobError, match="One slice does not fit into the memory of cpu"):
        list(predict_slices(noise, make_model(lungs=never), SliceOrder(5), batch=4, notice=lambda text: None))


def test_a_slice_that_fits_alone_only_is_labelled_alone(make_model: MakeModel) -> None:
    here, calls = 0, 0
    crowds: list[int] = []
    changed = threading.Condition()

    def crowded(slices: Tensor) -> Tensor:
        nonlocal here, calls
        with changed:
            here, calls = here + 1, calls + 1
            changed.notify_all()
            if calls > 1 and not crowds:  # the first slice comes alone
                changed.wait_for(lambda: here > 1 or crowds, 10)
            try:
                if here > 1:
                    crowds.append(here)
                    changed.notify_all()
                    raise torch.OutOfMemoryError("out of memory")
                return everywhere(slices)
            finally:
                here -= 1

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    notices: list[str] = []
    try:
        model = make_model(lungs=crowded)
        batches = list(predict_slices(noise, model, SliceOrder(6), notice=notices.append))
    finally:
        torch.set_num_threads(before)
    assert flat(batches) == list(range(6))
    assert crowds == [2]
    assert notices == ["The memory of cpu is full: going on with one slice at a time."]


def test_nothing_is_yielded_while_waiting_unless_asked_for(make_model: MakeModel) -> None:
    def slow(slices: Tensor) -> Tensor:
        time.sleep(0.1)
        return everywhere(slices)

    model = make_model(lungs=slow)
    assert all(list(predict_slices(noise, model, SliceOrder(3))))
    turns = list(predict_slices(noise, model, SliceOrder(3), heartbeat=0.01))
    assert flat(turns) == [0, 1, 2]
    assert turns[0] == []


def test_another_error_of_the_network_is_not_hidden(make_model: MakeModel) -> None:
    def broken(slices: Tensor) -> Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        list(predict_slices(noise, make_model(lungs=broken), SliceOrder(5)))


def test_a_cancel_waits_for_few_slices_on_a_cpu() -> None:
    assert default_batch(torch.device("cpu")) <= 4
    assert default_batch(torch.device("cuda")) > default_batch(torch.device("cpu"))
