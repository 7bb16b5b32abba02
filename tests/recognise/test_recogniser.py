"""Slices are prepared as those that were taught, and asked about outwards, where there is lung."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from recognisers import MANIFESTATIONS, make_card
from xrays import chest

from napari_covseg.errors import ModelError
from napari_covseg.models.file import Model
from napari_covseg.models.preparation import Preparation, as_shown
from napari_covseg.recognise.recogniser import Recogniser, recognise_slices, shows_lung
from napari_covseg.scans.appearance import HOUNSFIELD, Appearance
from napari_covseg.scans.scan import in_window
from phantom import phantom

T = TypeVar("T")
XRAY = Appearance("grey", "chest X-ray")


class OneByOne:
    """Works when it is asked to."""

    count = 1

    def submit(self, work: Callable[[], T]) -> Future[T]:
        done: Future[T] = Future()
        done.set_result(work())
        return done


@pytest.fixture(scope="module")
def ct() -> np.ndarray:
    """Slices of a chest, HU (5, 96, 96)."""
    return phantom(12, (5, 96, 96), (35.0, 3.8, 3.8)).scan.voxels


def test_an_x_ray_is_prepared_as_those_are_that_models_learn_from(model: Callable[..., Model]) -> None:
    picture = chest(8)[10:, :100].astype(np.uint8)
    taught = Preparation.from_card(make_card().preparation)(picture, "grey")
    np.testing.assert_array_equal(Recogniser(model(), XRAY).prepare(picture.astype(np.int16)), taught)

    # the same picture with all the bits of a detector, in the window of its file
    stored, window = chest(16), (12000.0, 52000.0)
    exported = in_window(stored, window)
    taught = Preparation.from_card(make_card().preparation)(exported, "grey")
    appearance = Appearance("grey", "chest X-ray", bits=16)
    np.testing.assert_array_equal(Recogniser(model(), appearance, window).prepare(stored), taught)
    inverted = Recogniser(model(), appearance.overruled(inverted=True), window).prepare(stored)
    np.testing.assert_array_equal(
        inverted, Preparation.from_card(make_card().preparation)(255 - exported, "grey")
    )


def test_answers_are_those_of_the_network_with_and_without_heat_maps(model: Callable[..., Model]) -> None:
    loaded = model()
    recogniser = Recogniser(loaded, XRAY)
    slices = [chest(8).astype(np.int16), chest(8)[:, ::-1].astype(np.int16)]
    plain = recogniser.answer([3, 4], slices, heat_maps=False)
    inputs = torch.from_numpy(np.stack([recogniser.prepare(one) for one in slices]))[:, None].float() / 255
    with torch.inference_mode():
        logits = loaded.network(inputs)
    truth = torch.cat([logits["COVID-19"], logits["normal"]], 1).softmax(1)
    np.testing.assert_allclose([one.probabilities for one in plain], truth, rtol=1e-4)
    assert [one.z for one in plain] == [3, 4] and all(one.heat is None for one in plain)
    hot = recogniser.answer([3, 4], slices, heat_maps=True)
    np.testing.assert_allclose([one.probabilities for one in hot], truth, rtol=1e-4)
    for one in hot:
        assert one.heat is not None and one.heat.shape == (2, 128, 128)
        # the brightest place is as bright as the output is likely
        np.testing.assert_allclose(one.heat.max((1, 2)) / 255, one.probabilities, atol=0.06)


def test_only_slices_with_lung_are_asked_about_and_in_the_order_that_is_given(
    model: Callable[..., Model], ct: np.ndarray
) -> None:
    air = np.full((1, 96, 96), -1000, np.int16)
    water = np.where(np.hypot(*(np.mgrid[:96, :96] - 48)) < 40, 40, -1000).astype(np.int16)[None]
    voxels = np.concatenate([air, ct, water])
    assert [shows_lung(one, HOUNSFIELD) for one in voxels] == [False, *[True] * 5, False]
    names = [Recogniser(model(id=name, modalities=("CT",)), HOUNSFIELD) for name in ("a", "b")]
    left = [3, 6, 2, 1, 0]

    def take(count: int) -> list[int]:
        now, left[:] = left[:count], left[count:]
        return now

    batches = list(
        recognise_slices(
            voxels.__getitem__, names, take, lambda _, one: shows_lung(one, HOUNSFIELD), OneByOne(), batch=2
        )
    )
    told = [
        (one.model.card.id, answer.z, not np.isnan(answer.probabilities).any())
        for batch in batches
        for one, answer in batch
    ]
    assert told[:2] == [("a", 3, True), ("b", 3, True)]  # the first alone, by all
    assert sorted(told[2:6]) == [("a", 2, True), ("a", 6, False), ("b", 2, True), ("b", 6, False)]
    assert {(z, asked) for _, z, asked in told[6:]} == {(1, True), (0, False)}


def test_a_picture_of_a_ct_is_seen_as_a_model_that_labels_sees_it(
    model: Callable[..., Model], ct: np.ndarray
) -> None:
    plain = in_window(ct[2], (-1350, 150)).astype(np.int16)
    upright = Appearance("grey", contrast="lung window")
    lies = Appearance("grey", contrast="lung window", inverted=True, turned=90)
    stored = np.rot90(255 - plain)
    loaded = model(modalities=("CT",))
    np.testing.assert_array_equal(
        Recogniser(loaded, lies).prepare(stored), Recogniser(loaded, upright).prepare(plain)
    )
    assert shows_lung(stored, lies) and shows_lung(plain, upright)


def test_only_what_labels_or_names_findings_has_a_margin_around_a_cropped_picture(
    model: Callable[..., Model], ct: np.ndarray
) -> None:
    plain = in_window(ct[2], (-1350, 150))[20:80].astype(np.int16)
    cropped = Appearance("grey", contrast="equalised", cropped=True)
    preparation = Preparation.from_card(make_card().preparation)
    recogniser = Recogniser(model(modalities=("CT",)), cropped)
    np.testing.assert_array_equal(recogniser.prepare(plain), preparation(plain, "grey"))
    (answer,) = recogniser.answer([0], [plain], heat_maps=True)
    assert answer.heat is not None and answer.heat.shape[1:] == plain.shape
    names = Recogniser(model(**MANIFESTATIONS), cropped)
    np.testing.assert_array_equal(names.prepare(plain), as_shown(plain, cropped, preparation))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (
            {
                "network": {"name": "unet", "settings": {"features": [2], "bottleneck": 2}},
                "task": "segmentation",
                "outputs": ("lesion",),
            },
            "labels pixels",
        ),
        ({"preparation": {"size": 64, "crop": "lungs"}}, "cropped to the lungs"),
    ],
)
def test_what_cannot_recognise_is_refused(
    model: Callable[..., Model], values: dict[str, Any], told: str
) -> None:
    with pytest.raises(ModelError, match=told):
        Recogniser(model(**values), XRAY)
