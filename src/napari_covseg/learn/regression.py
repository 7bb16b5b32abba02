"""Whether a new version is worth keeping: better on held-out slices, and nothing forgotten.

It goes as far from its parent as it can without forgetting what the parent knew: weights between a
network and its fine-tuned copy forget less than the copy, and are often hardly worse on what was learned
(Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Generic, TypeVar
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from napari_covseg.errors import ModelError
from napari_covseg.learn.corrections import targets_of
from napari_covseg.learn.slices import LabelledSlices
from napari_covseg.learn.train import update_average
from napari_covseg.models.card import ModelCard
from napari_covseg.models.file import Model
from napari_covseg.models.preparation import Preparation

CHANCE = 0.05
"""Of versions that are no better, at most so many may seem so."""
FEWEST = 3
"""Held-out slices below which nobody knows how much of a gain is chance."""
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
        In one or two sentences.
    """

    keep: bool
    reason: str


@dataclass(frozen=True)
class Gain:
    """How far a version is better than its parent on slices that it has not learned from.

    Attributes
    ----------
    mean : float
        Of the Dice over all of them, the mean over the outputs.
    noise : float
        What that would exceed by chance in one of twenty fine-tunings that bring nothing.
    slices : int
    painted : dict of str to float
        What it paints of an output there, divided by what its parent paints.
    """

    mean: float
    noise: float
    slices: int
    painted: dict[str, float]

    @property
    def in_words(self) -> str:
        """What it paints more and less, as a sentence; empty if it is all the same."""
        changes = [
            f"{abs(share - 1):.0%} {'more' if share > 1 else 'less'} {name}"
            for name, share in self.painted.items()
            if round(100 * abs(share - 1))
        ]
        where = "held-out slice" if self.slices == 1 else f"{self.slices} held-out slices"
        return f"On the {where} it paints {' and '.join(changes)}." if changes else ""


def gain_of(
    before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], outputs: Sequence[str], looks: int = 1
) -> Gain:
    """Return the paired gain on held-out slices, and how much of it may be chance.

    The noise is the standard error of the difference of Dice by the jackknife, which leaves out each slice
    in turn, times the quantile of Student's t. The slices have also chosen among the weights of several
    looks, so that each look gets its share of the 5 %. Of fewer than three slices it is not known: infinite.

    Parameters
    ----------
    before, after : ndarray of int64, shape (n, outputs, 3)
        As from `score.count_by_slice`.
    outputs : sequence of str
    looks : int
        How often the slices have chosen.
    """
    count = len(before)

    def rise(keep: npt.NDArray[np.bool_]) -> float:
        old, new = (_dice(counts[keep].sum(0)) for counts in (before, after))
        both = np.isfinite(old) & np.isfinite(new)
        return float(np.mean((new - old)[both])) if both.any() else 0.0

    everything = np.ones(count, np.bool_)
    noise = float("inf")
    if count >= FEWEST:
        without = np.array([rise(np.arange(count) != left_out) for left_out in range(count)])
        error = np.sqrt((count - 1) / count * np.square(without - without.mean()).sum())
        noise = float(error * stdtrit(count - 1, 1 - CHANCE / max(looks, 1)))
    painted = {
        name: float(new / old)
        for name, old, new in zip(outputs, before[..., 1].sum(0), after[..., 1].sum(0), strict=True)
        if old
    }
    return Gain(rise(everything), noise, count, painted)


def _dice(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Dice of each output; NaN where nothing is found and nothing labelled."""
    both, found, true = counts.T.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return np.asarray(2 * both / (found + true))


def judge(
    held_out: tuple[Scores, Scores] | None,
    regression: dict[str, tuple[Scores, Scores]] | None,
    gain: Gain | None = None,
) -> Verdict:
    """Compare a version with its parent.

    Parameters
    ----------
    held_out : pair of dict, optional
        Dice before and after on the corrected slices that were held out.
    regression : dict of str to pair of dict, optional
        The same for each part of the regression set.
    gain : Gain, optional
        What is known of the held-out slices beyond that: no version is better by less than the noise.
    """
    verdict = _judge(held_out, regression, gain)
    painted = "" if gain is None else gain.in_words
    return replace(verdict, reason=f"{verdict.reason} {painted}".rstrip())


def _judge(
    held_out: tuple[Scores, Scores] | None,
    regression: dict[str, tuple[Scores, Scores]] | None,
    gain: Gain | None,
) -> Verdict:
    if held_out is None or not held_out[0]:
        return Verdict(False, "Too few slices are corrected to hold one out: look at the new labels.")
    rise = mean(held_out[1]) - mean(held_out[0])
    change = f"held-out Dice {mean(held_out[0]):.3f} to {mean(held_out[1]):.3f}"
    if rise <= 0:
        return Verdict(False, f"It is no better on the held-out slices: {change}.")
    if regression is None or gain is None:
        return Verdict(False, f"It may be better, {change}: chance and what it forgot are not measured.")
    if gain.slices < FEWEST:
        few = f"{gain.slices} held-out slice{'s' if gain.slices > 1 else ''}"
        return Verdict(False, f"Nobody can tell whether it is better: {change}, but {few} may be chance.")
    if gain.mean <= gain.noise:
        rise_and_noise = f"a gain of {gain.mean:.3f}, of which {gain.noise:.3f} may be chance"
        return Verdict(False, f"Nobody can tell whether it is better: {change}, {rise_and_noise}.")
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
