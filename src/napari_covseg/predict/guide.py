"""Corrected slices guide those around them: what was drawn on one is likely on the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import UNION, UNITED, joins, lesion
from napari_covseg.models.card import ModelCard
from napari_covseg.predict.clean import clean_slice
from napari_covseg.predict.labeller import SlicePrediction
from napari_covseg.predict.motion import Motion

Mask = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float32]

_LIKE = (0.58, 0.83)
_STRENGTH = (4.0, 8.0)
"""How much a corrected slice adds to the log odds in the next slice, inside what was drawn: by how
alike adjacent slices are, from thick slices to thin ones."""
_REACH_LIKE, _REACH = (0.70, 0.83), (3.0, 7.0)
"""Slices over which that falls to 1/e, likewise."""
_WEAKEST = 0.25
_EDGE_MM = 4.2
"""From the outline of what was drawn to where a corrected slice has its full say."""
_UNKNOWN_PIXEL_MM = 1.4
_P = np.clip(np.arange(256) / 255, 0.01, 0.99)
_LOG_ODDS = np.log(_P / (1 - _P)).astype(np.float32)


class Guide:
    """Adds to a slice's probabilities what the nearest corrected slices on either side show.

    In log odds: a corrected slice speaks for its label inside the outline and against it
    outside, less beside the outline, and less the farther away the slice is. The outline
    moves with the picture from slice to slice. Measured by `covseg assess effort`; see
    ``docs/effort.md``.

    Parameters
    ----------
    corrected : mapping of int to ndarray of uint8, shape (y, x)
        Lesion labels of corrected and accepted slices.
    card : ModelCard
        Of the model whose probabilities are guided.
    likeness : float
        How alike adjacent slices are, from `likeness`.
    pixel : tuple of float, optional
        (y, x) in mm; None where it is unknown.
    motion : Motion, optional
        Of the scan; without it outlines stay where they were drawn.
    """

    def __init__(
        self,
        corrected: Mapping[int, Mask],
        card: ModelCard,
        likeness: float = 0.7,
        pixel: tuple[float, float] | None = None,
        motion: Motion | None = None,
    ) -> None:
        self._strength = float(np.interp(likeness, _LIKE, _STRENGTH))
        self._reach = float(np.interp(likeness, _REACH_LIKE, _REACH))
        self._corrected, self._card, self._pixel, self._motion = corrected, card, pixel, motion
        self._edge = _EDGE_MM / float(np.mean(pixel or (_UNKNOWN_PIXEL_MM,)))
        self._said: dict[tuple[int, int], Values] = {}
        self._moved: dict[tuple[int, int, int], npt.NDArray[np.int8]] = {}

    def near(self, z: int) -> dict[int, float]:
        """Return the slices that have a say about slice `z`, and how strong it is."""
        sides = ([one for one in self._corrected if one < z], [one for one in self._corrected if one > z])
        nearest = [choose(side) for side, choose in zip(sides, (max, min), strict=True) if side]
        says = {one: self._strength * float(np.exp((1 - abs(z - one)) / self._reach)) for one in nearest}
        return {one: strength for one, strength in says.items() if strength >= _WEAKEST}

    def __call__(self, predicted: SlicePrediction) -> SlicePrediction:
        """Return the slice with the lesions that are likely now, cleaned as any prediction.

        A slice that no corrected one is near to, or that was corrected itself, comes back as it is.

        Parameters
        ----------
        predicted : SlicePrediction
            With its probabilities.

        Raises
        ------
        ValueError
            If the slice has no probabilities.
        """
        if predicted.z in self._corrected or not (near := self.near(predicted.z)):
            return predicted
        if predicted.probabilities is None:
            raise ValueError(f"slice {predicted.z} has no probabilities")
        lesions = np.zeros_like(predicted.lesions)
        best = np.zeros(lesions.shape, np.float32)
        odds: dict[str, Values] = {}
        for label in self._card.lesions:
            said = predicted.probabilities[self._card.outputs.index(label.name)]
            odds[label.name] = _LOG_ODDS[said]
            for one, strength in near.items():
                odds[label.name] += np.float32(strength) * self._say_at(predicted.z, one, label.value)
        if joins(self._card.outputs):  # their union decides, the likelier names it
            first, second = (odds.pop(name) for name in UNITED)
            best = np.logaddexp(np.logaddexp(first, second), first + second)
            best -= np.float32(_log_odds(self._card.levels[UNION]))
            names = np.where(second > first, lesion(UNITED[1]).value, lesion(UNITED[0]).value)
            lesions = np.where(best >= 0, names, 0).astype(np.uint8)
        for name, here in odds.items():
            here -= np.float32(_log_odds(self._card.levels[name]))
            wins = (here >= 0) & ((lesions == 0) | (here > best))
            lesions[wins], best[wins] = lesion(name).value, here[wins]
        labels = self._card.lesions if "lungs" in self._card.outputs else ()
        _, lesions = clean_slice(predicted.lungs, lesions, labels, self._pixel)
        return replace(predicted, lesions=lesions)

    def _say_at(self, z: int, one: int, value: int) -> Values:
        """Return what corrected slice `one` says about a label on slice `z`."""
        said = self._say(one, value)
        if self._motion is None:
            return said
        step = 1 if z > one else -1
        # from the last slice on the way that it was asked for before
        start = next(at for at in range(z, one - step, -step) if at == one or (at, one, value) in self._moved)
        field = self._motion.small(said) if start == one else self._unpacked(start, one, value)
        for at in range(start, z, step):
            field = self._motion.carry(field, at, at + step)
            self._moved[at + step, one, value] = np.rint(field * 127).astype(np.int8)
        return np.asarray(cv2.resize(field, said.shape[::-1], interpolation=cv2.INTER_LINEAR), np.float32)

    def _unpacked(self, z: int, one: int, value: int) -> Values:
        return np.asarray(self._moved[z, one, value] / np.float32(127), np.float32)

    def _say(self, z: int, value: int) -> Values:
        """Return 1 deep inside what corrected slice `z` has labelled with `value`, -1 far outside."""
        if (z, value) not in self._said:
            # a lesion that a person has not told apart may be either
            apart = joins(self._card.outputs) and value in {lesion(name).value for name in UNITED}
            meant = [value, lesion(UNION).value] if apart else [value]
            here = np.isin(self._corrected[z], meant).astype(np.uint8)
            if here.any() and not here.all():
                inside = cv2.distanceTransform(here, cv2.DIST_L2, cv2.DIST_MASK_5)
                outside = cv2.distanceTransform(1 - here, cv2.DIST_L2, cv2.DIST_MASK_5)
                said = np.clip((inside - outside) / self._edge, -1, 1)
            else:
                said = np.where(here > 0, 1.0, -1.0)
            self._said[z, value] = np.asarray(said, np.float32)
        return self._said[z, value]


def likeness(lesions: npt.NDArray[np.uint8]) -> float:
    """Return the Dice of the lesions in adjacent slices: high in thin slices, 0.7 without any lesion.

    Parameters
    ----------
    lesions : ndarray of uint8, shape (z, y, x)
        As labelled so far, by whomever.
    """
    both = total = 0
    for one, other in pairwise(lesions > 0):
        both += int(np.count_nonzero(one & other))
        total += int(np.count_nonzero(one) + np.count_nonzero(other))
    return 2 * both / total if total else 0.7


def _log_odds(threshold: float) -> float:
    level = min(max(threshold, 0.01), 0.99)
    return float(np.log(level / (1 - level)))
