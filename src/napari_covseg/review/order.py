"""Which slice is worth a look next: strategies on what is known of each slice."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from napari_covseg.metrics.entropy import slice_entropy

Strategy = Literal["position", "uncertainty", "disagreement", "gain"]
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
DEFAULT_STRATEGY: Strategy = "gain"
"""Measured against evenly spaced slices; see ``docs/effort.md``."""

_ROUND = 5
"""Slices that evenly spaced positions are first laid out for: as many as start a fine-tuning."""
_APART = 20
"""Slices that a look at one of them makes less urgent: within this part of the scan."""
_REACH = 10
"""A correction teaches most about slices within this part of the scan."""


@dataclass(frozen=True, eq=False)
class SliceFeatures:
    """What the strategies know of each slice.

    Attributes
    ----------
    entropy : ndarray of float, shape (z,)
        Of the model's lesion probability, in bits, summed over the slice's pixels: about as
        many as the model may be wrong in.
    disagreement : ndarray of float, shape (z,)
        Pixels in which the lesion probability differs from that of the slices on either side.
    shown : ndarray of bool, shape (z,)
        Whether there is lung or a finding in the slice. Others come last.

    Raises
    ------
    ValueError
        If the lengths differ.
    """

    entropy: npt.NDArray[np.float64]
    disagreement: npt.NDArray[np.float64]
    shown: npt.NDArray[np.bool_]

    def __post_init__(self) -> None:
        if not len(self.entropy) == len(self.disagreement) == len(self.shown):
            raise ValueError("features of different numbers of slices")

    def __len__(self) -> int:
        return len(self.shown)


def slice_features(
    lesions: npt.NDArray[np.uint8], lungs: npt.NDArray[np.uint8] | None = None
) -> SliceFeatures:
    """Compute the features of a scan.

    Parameters
    ----------
    lesions : ndarray of uint8, shape (z, y, x)
        Probability of any lesion, 0-255.
    lungs : ndarray of uint8, shape (z, y, x), optional
        Probability or mask; without it every slice counts as one that shows lung.
    """
    count = len(lesions)
    disagreement = np.zeros(count)
    for z in range(count):
        beside = [lesions[near].astype(np.float32) for near in (z - 1, z + 1) if 0 <= near < count]
        if beside:
            disagreement[z] = float(np.abs(lesions[z] - sum(beside) / len(beside)).sum()) / 255
    shown = np.ones(count, np.bool_)
    if lungs is not None:
        # half the range for probabilities; any value of a mask
        level = 128 if lungs.size and int(lungs.max()) > 3 else 1
        shown = np.asarray((lungs >= level).any((1, 2)) | (lesions >= 128).any((1, 2)))
    return SliceFeatures(np.array([slice_entropy(slice_) for slice_ in lesions]), disagreement, shown)


def next_slice(strategy: Strategy, features: SliceFeatures, corrected: Collection[int]) -> int:
    """Return the slice where a look is worth most.

    Parameters
    ----------
    strategy : str
        ``"position"``: evenly spaced, then the middle of the widest gap. ``"uncertainty"``:
        highest entropy. ``"disagreement"``: most unlike its neighbours. ``"gain"``: the
        entropy that a correction takes away here and, less the farther they are, from slices
        around that no corrected slice is near to. The second and third pass over slices
        right beside corrected ones as long as there are others.
    features : SliceFeatures
    corrected : collection of int
        Slices that need no look: corrected or accepted.

    Raises
    ------
    ValueError
        If every slice is corrected, or there is no such strategy.
    """
    done = np.zeros(len(features), np.bool_)
    done[list(corrected)] = True
    if done.all():
        raise ValueError("every slice is corrected")
    worth = _worth(strategy, features, done)
    candidates = ~done & features.shown
    if not candidates.any():
        candidates = ~done
    return int(np.argmax(np.where(candidates, worth, -np.inf)))


def _worth(
    strategy: Strategy, features: SliceFeatures, done: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    if strategy == "position":
        return _spacing(features.shown, done)
    if strategy == "uncertainty":
        return _apart(features.entropy, done)
    if strategy == "disagreement":
        return _apart(features.disagreement, done)
    if strategy == "gain":
        return _gain(features, done)
    raise ValueError(f"no strategy {strategy!r}: there are {', '.join(STRATEGIES)}")


def _distance(done: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Slices to the nearest corrected one; as many as there are if there is none."""
    where = np.flatnonzero(done)
    if not len(where):
        return np.full(len(done), float(len(done)))
    apart = np.abs(np.arange(len(done))[:, None] - where).min(1)
    return np.asarray(apart, np.float64)


def _spacing(shown: npt.NDArray[np.bool_], done: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Prefer, in their order, evenly spaced slices that are far from corrected ones; then wide gaps."""
    distance = _distance(done)
    places = np.flatnonzero(shown) if shown.any() else np.arange(len(shown))
    laid_out = places[((np.arange(_ROUND) + 0.5) * len(places) / _ROUND).astype(np.intp)]
    z = np.arange(len(done))
    # beyond the ends there is nothing that a slice there could teach about
    worth = np.asarray(np.minimum(distance, 2.0 * np.minimum(z - places[0], places[-1] - z) + 1))
    for rank, place in enumerate(laid_out):
        if distance[place] > len(places) / _ROUND / 2:
            worth[place] += (_ROUND - rank) * 2 * len(shown)
    return worth


def _apart(values: npt.NDArray[np.float64], done: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Put slices right beside corrected ones behind all others."""
    beside = _distance(done) <= len(done) / _APART
    return np.where(beside, values - values.max() - 1, values)


def _gain(features: SliceFeatures, done: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    reach = max(1.0, len(done) / _REACH)
    z = np.arange(len(done))
    taught = np.exp(-np.abs(z[:, None] - z) / reach)  # [from, to]
    already = taught[done].max(0) if done.any() else np.zeros(len(done))
    # a trace of entropy everywhere: a model that is sure of all still asks for slices far apart
    trusted = features.entropy + 1e-3 * max(1.0, float(features.entropy.max()))
    return np.asarray(np.maximum(taught - already, 0) @ trusted, np.float64)
