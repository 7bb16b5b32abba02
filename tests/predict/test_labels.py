"""From probabilities to labels: the union decides, thresholds name, the likeliest wins."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from napari_covseg.labels import lesion
from napari_covseg.models.file import Model
from napari_covseg.predict.labelling import to_labels
from napari_covseg.predict.options import PredictOptions

FOUR = ("lungs", "ground-glass", "consolidation", "pleural effusion")
LEVELS = dict.fromkeys((*FOUR, "lesion"), 0.5)


def label(levels: dict[str, float], *probability: float) -> tuple[int, int]:
    lungs, lesions = to_labels(torch.tensor(probability).reshape(1, -1, 1, 1), FOUR, levels)
    return int(lungs[0, 0, 0]), int(lesions[0, 0, 0])


@pytest.mark.parametrize(
    ("probability", "found"),
    [
        ((0.6, 0.2, 0.1, 0.1), ""),
        ((0.4, 0.4, 0.3, 0.0), "ground-glass"),  # 1 - 0.6 * 0.7 = 0.58
        ((0.4, 0.3, 0.4, 0.0), "consolidation"),
        ((0.4, 0.3, 0.4, 0.59), "pleural effusion"),
        ((0.4, 0.1, 0.1, 0.51), "pleural effusion"),
        ((0.4, 0.6, 0.6, 0.7), "ground-glass"),  # their union, 0.84, is likelier than an effusion
        ((0.4, 0.5, 0.5, 0.75), "ground-glass"),  # as likely as an effusion: what stands first
    ],
)
def test_what_a_voxel_is_called(probability: tuple[float, ...], found: str) -> None:
    value = lesion(found).value if found else 0
    assert label(LEVELS, *probability) == (3 if probability[0] >= 0.5 else 0, value)


def test_each_is_as_likely_as_its_threshold_says() -> None:
    levels = {**LEVELS, "consolidation": 0.4, "lesion": 0.35}
    assert label(levels, 0.0, 0.50, 0.41, 0.0)[1] == lesion("consolidation").value  # 0.41 / 0.4 > 0.5 / 0.5
    assert label(levels, 0.0, 0.50, 0.39, 0.0)[1] == lesion("ground-glass").value
    assert label(levels, 0.0, 0.20, 0.15, 0.0)[1] == 0  # 0.32


def test_a_threshold_that_is_asked_for_is_that_of_the_union(make_model: Callable[..., Model]) -> None:
    names = {name.replace("-", "_"): (lambda slices: slices) for name in ("ground-glass", "consolidation")}
    card = make_model(lungs=lambda slices: slices, **names).card
    card = dataclasses.replace(card, thresholds={**card.thresholds, "consolidation": 0.4})
    assert PredictOptions(threshold=0.3).levels(card) == {"lesion": 0.3}
    plain = make_model(lungs=lambda slices: slices, lesion=lambda slices: slices).card
    assert PredictOptions(threshold=0.3).levels(plain) == {"lesion": 0.3}
    assert PredictOptions().levels(card) == {}
