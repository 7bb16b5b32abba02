"""Whether a new version is worth keeping: better on held-out slices, and nothing forgotten.

It goes as far from its parent as it can without forgetting what the parent knew: weights between a
network and its fine-tuned copy forget less than the copy, and are often hardly worse on what was learned
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError
from napari_covseg.learn.corrections import targets_of
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import update_average
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model
from napari_covseg.models.preparation import Preparation

MOST_FORGOTTEN = 0.02
"""Dice by which the regression set may fall."""
REGRESSION_SEEDS = (12, 13)
MEMORY_SEEDS = (11,)
"""Phantoms that are remembered are never those that are measured."""
SEEDS = (*MEMORY_SEEDS, *REGRESSION_SEEDS)
FILE = Path(__file__).with_name("phantoms.npz")
"""Slices of these phantoms, from ``sample_data/make_regression.py``: making them takes seconds."""

Volume = npt.NDArray[np.int16]
Labels = npt.NDArray[np.uint8]

Scores = dict[str, float]
"""Dice per output."""


@dataclass(frozen=True)
class Verdict:
    """What the measurements speak for; a person decides.

    Attributes
    ----------
    keep : bool
    reason : str
        One sentence.
    """

    keep: bool
    reason: str


def judge(
    held_out: tuple[Scores, Scores] | None, regression: dict[str, tuple[Scores, Scores]] | None
) -> Verdict:
    """Compare a version with its parent.

    Parameters
    ----------
    held_out : pair of dict, optional
        Dice before and after on the corrected slices that were held out.
    regression : dict of str to pair of dict, optional
        The same for each part of the regression set.
    """
    if held_out is None or not held_out[0]:
        return Verdict(False, "Too few slices are corrected to hold one out: look at the new labels.")
    rise = mean(held_out[1]) - mean(held_out[0])
    change = f"held-out Dice {mean(held_out[0]):.3f} to {mean(held_out[1]):.3f}"
    if rise <= 0:
        return Verdict(False, f"It is no better on the held-out slices: {change}.")
    if regression is None:
        return Verdict(False, f"It is better, {change}, but what it forgot was not measured.")
    falls = forgotten(*({part: pair[k] for part, pair in regression.items()} for k in (0, 1)))
    if falls:
        worst = max(falls, key=lambda part: falls[part])
        return Verdict(False, f"It is better, {change}, but has forgotten {falls[worst]:.3f} on {worst}.")
    return Verdict(True, f"It is better, {change}, and has forgotten nothing.")


def forgotten(before: dict[str, Scores], after: dict[str, Scores]) -> dict[str, float]:
    """Return how far each part of the regression set fell, of those that fell too far."""
    falls = {part: mean(before[part]) - mean(after[part]) for part in before}
    return {part: fall for part, fall in falls.items() if fall > MOST_FORGOTTEN}


def mean(scores: Scores) -> float:
    """Mean over the outputs."""
    return float(np.mean(list(scores.values())))


def phantom_slices(card: ModelCard, seeds: tuple[int, ...] = REGRESSION_SEEDS) -> LabelledSlices:
    """Return slices of patients who do not exist, with the truth for the outputs of a model.

    Raises
    ------
    ModelError
        If they are missing in the installation.
    """
    preparation = Preparation.from_card(card.preparation)
    slices = LabelledSlices.joined(_phantom_slices(seed, preparation, card.outputs) for seed in seeds)
    assert slices is not None
    return slices


def shipped_phantom(seed: int) -> tuple[Volume, Labels, Labels]:
    """Read the voxels in HU, the lungs and the lesions of a phantom, (z, y, x) each. Raises ModelError."""
    try:
        with np.load(FILE) as file:
            return file[f"voxels {seed}"], file[f"lungs {seed}"], file[f"lesions {seed}"]
    except (OSError, KeyError, ValueError, BadZipFile) as error:
        raise ModelError(f"{FILE} is missing or damaged ({error}): install napari-covseg again.") from error


@lru_cache(maxsize=8)
def _phantom_slices(seed: int, preparation: Preparation, outputs: tuple[str, ...]) -> LabelledSlices:
    voxels, *truth = shipped_phantom(seed)
    images = np.stack([preparation(slice_, "HU") for slice_ in voxels])
    masks = [
        targets_of(lungs, lesions, outputs, preparation.size) for lungs, lesions in zip(*truth, strict=True)
    ]
    patients = np.full(len(images), f"phantom {seed}")
    return LabelledSlices(images, np.stack(masks), patients, outputs, numbers=np.arange(len(images)))


# Weight interpolation

SHARES = (1.0, 0.5, 0.25)
"""Of the way from the parent's weights (0) to those that were learned (1), the largest first."""

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Interpolated(Generic[T]):
    """A version between its parent and what was learned.

    Attributes
    ----------
    model : Model
    share : float
        Of `SHARES`.
    measured : T
        Of this model, by what `farthest` was given.
    """

    model: Model
    share: float
    measured: T


def farthest(
    parent: Model, learned: Model, measure: Callable[[Model], T], forgets: Callable[[T], bool]
) -> Interpolated[T]:
    """Return the version that goes farthest without forgetting; the nearest one if all forget.

    Parameters
    ----------
    parent, learned : Model
    measure : callable
        Measures a model on what should not be forgotten.
    forgets : callable
        Whether that is too little.
    """
    for share in SHARES:
        model = interpolate(parent, learned, share)
        found = Interpolated(model, share, measure(model))
        if not forgets(found.measured):
            break
    return found


def interpolate(parent: Model, learned: Model, share: float) -> Model:
    """Return the model whose weights are those of `parent` (0), of `learned` (1), or between them."""
    if share == 1:
        return learned
    network = copy.deepcopy(parent.network).eval()
    update_average(network, learned.network, 1 - share)
    return replace(learned, network=network.requires_grad_(False))
