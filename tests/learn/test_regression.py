from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import make_regression
from napari_covseg.errors import ModelError
from napari_covseg.learn import regression
from napari_covseg.learn.regression import (
    MEMORY_SEEDS,
    REGRESSION_SEEDS,
    Gain,
    gain_of,
    judge,
    phantom_slices,
    shipped_phantom,
)
from napari_covseg.models.card import ModelCard
from napari_covseg.models.preparation import Preparation


def both(value: float) -> dict[str, float]:
    return {"lungs": 0.9, "lesion": value}


@pytest.mark.parametrize(
    ("held_out", "regression", "keep", "words"),
    [
        ((0.5, 0.8), (0.6, 0.6), True, "forgotten nothing"),
        ((0.5, 0.8), (0.6, 0.562), True, "forgotten nothing"),  # 0.019 on the mean of both outputs
        ((0.5, 0.8), (0.6, 0.558), False, "has forgotten 0.021 on phantoms"),
        ((0.5, 0.8), (0.6, 0.5), False, "has forgotten 0.050 on phantoms"),
        ((0.5, 0.5), (0.6, 0.7), False, "no better"),
        ((0.5, 0.4), (0.6, 0.7), False, "no better"),
        (None, (0.6, 0.7), False, "Too few"),
        ((0.5, 0.8), None, False, "are not measured"),
    ],
)
def test_a_version_is_recommended_if_it_is_better_and_forgets_nothing(
    held_out: tuple[float, float] | None, regression: tuple[float, float] | None, keep: bool, words: str
) -> None:
    pair = None if held_out is None else (both(held_out[0]), both(held_out[1]))
    parts = None if regression is None else {"phantoms": (both(regression[0]), both(regression[1]))}
    verdict = judge(pair, parts, Gain(0.3, 0.1, 4, {"lungs": 1.001}))
    assert verdict.keep == keep and words in verdict.reason and verdict.reason.endswith(".")


def slices(dice: list[float]) -> np.ndarray:
    """Counts of slices with these Dice, of 100 pixels that are found and as many that are labelled."""
    return np.array([[[round(100 * value), 100, 100]] for value in dice])


@pytest.mark.parametrize(
    ("before", "after", "looks", "better"),
    [
        ([0.70, 0.72, 0.74, 0.76], [0.78, 0.80, 0.83, 0.84], 1, True),
        ([0.70, 0.72, 0.74, 0.76], [0.95, 0.60, 0.74, 0.80], 1, False),  # one slice alone
        ([0.75, 0.77, 0.76, 0.75], [0.77, 0.76, 0.76, 0.75], 1, False),  # 0.758 to 0.760
        ([0.70, 0.72, 0.74], [0.74, 0.80, 0.80], 1, True),
        ([0.70, 0.72, 0.74], [0.74, 0.80, 0.80], 8, False),  # the best of eight looks
        ([0.70, 0.72], [0.90, 0.92], 1, False),  # nobody knows the noise of two
    ],
)
def test_a_gain_within_its_noise_is_none(
    before: list[float], after: list[float], looks: int, better: bool
) -> None:
    found = gain_of(slices(before), slices(after), ["lesion"], looks)
    assert found.mean == pytest.approx(np.mean(after) - np.mean(before), abs=1e-6)
    pair = {"lesion": np.mean(before)}, {"lesion": np.mean(after)}
    verdict = judge(pair, {"phantoms": (both(0.5), both(0.5))}, found)
    assert verdict.keep == (found.mean > found.noise) == better
    assert ("Nobody can tell" in verdict.reason) != better


def test_the_noise_of_a_gain_by_hand() -> None:
    """Of gains of 0.04, 0.08 and 0.06, the jackknife's standard error times Student's 2.92 of 2 degrees."""
    pair = slices([0.70, 0.72, 0.74]), slices([0.74, 0.80, 0.80])
    without = np.array([0.07, 0.05, 0.06])
    error = np.sqrt(2 / 3 * ((without - 0.06) ** 2).sum())
    assert gain_of(*pair, ["lesion"]).noise == pytest.approx(error * 2.919986, rel=1e-5)


def test_what_a_version_paints_less_is_said() -> None:
    before, after = slices([0.8] * 3), slices([0.9] * 3)
    after[..., 1] = 86
    found = gain_of(before, after, ["lesion"])
    assert found.in_words == "On the 3 held-out slices it paints 14% less lesion."
    verdict = judge(({"lesion": 0.8}, {"lesion": 0.9}), {"phantoms": (both(0.5), both(0.5))}, found)
    assert verdict.keep and verdict.reason.endswith("forgotten nothing. " + found.in_words)


def test_where_nothing_that_was_held_out_counts_nothing_is_recommended() -> None:
    assert not judge(({}, {}), {"phantoms": (both(0.5), both(0.5))}).keep


def test_the_regression_set_is_the_same_in_every_process_and_never_remembered() -> None:
    card = ModelCard(
        id="m",
        title="",
        summary="",
        network={"name": "unet"},
        preparation=Preparation(size=64).to_card(),
        outputs=("lungs", "lesion"),
        thresholds={"lungs": 0.5, "lesion": 0.5},
    )
    slices = phantom_slices(card)
    assert slices.images.shape[1:] == (64, 64) and len(slices) == 8 * len(REGRESSION_SEEDS)
    assert (slices.masks == 1).any((0, 2, 3)).all()  # lungs and lesions
    assert len(set(slices.ids)) == len(slices)
    assert not set(MEMORY_SEEDS) & set(REGRESSION_SEEDS)
    assert np.array_equal(phantom_slices(card).images, slices.images)


@pytest.mark.slow
def test_the_phantoms_that_ship_are_those_that_are_made() -> None:
    seed = MEMORY_SEEDS[0]
    voxels, lungs, lesions = shipped_phantom(seed)
    made = make_regression.made(seed)
    assert voxels.dtype == np.int16 and np.abs(voxels.astype(int) - made.scan.voxels).max() <= 1
    assert np.mean(lungs == made.lungs) > 0.9999 and np.mean(lesions == made.lesions) > 0.9999
    assert lungs.any() and lesions.any()


def test_phantoms_that_are_missing_are_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(regression, "FILE", tmp_path / "phantoms.npz")
    with pytest.raises(ModelError, match=r"phantoms\.npz is missing or damaged .* install"):
        shipped_phantom(MEMORY_SEEDS[0])
    (tmp_path / "phantoms.npz").write_bytes(b"PK nothing")
    with pytest.raises(ModelError, match="missing or damaged"):
        shipped_phantom(MEMORY_SEEDS[0])
