"""From voxels to labels, in one place: preparation, networks, thresholds, rules, cleaning, sides.

Run, Refine, the guide, the shell and every measurement of labels come through here, each with its
own settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_covseg.labels import UNION, UNITED, joins, lesion
from napari_covseg.masks.sides import UNDETERMINED, guess_sides
from napari_covseg.models.preparation import reorient, reorient_back
from napari_covseg.predict.clean import clean_lesions, clean_lungs, drop_small
from napari_covseg.predict.ensemble import Adjust, Ensemble, PreparedSlice, as_bytes, infer, united, view
from napari_covseg.predict.guide import Guide
from napari_covseg.predict.hounsfield import drop_gas_and_fat, keep_raised
from napari_covseg.predict.options import RULES, Rule
from napari_covseg.scans.appearance import Appearance

Mask = npt.NDArray[np.uint8]
ReadSlice = Callable[[int], npt.NDArray[np.int16]]
Share = Callable[..., Iterable[Any]]


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """Labels of one slice.

    Attributes
    ----------
    z : int
    lungs : ndarray of uint8, shape (y, x)
        1 right, 2 left, as far as one slice tells (see `masks.sides.guess_sides`), 3 side undetermined.
    lesions : ndarray of uint8, shape (y, x)
        Values of `labels.LESIONS`.
    probabilities : ndarray of uint8, shape (output, y, x), or None
        0-255, in the order of the card's outputs.
    entropy : float
        See `ensemble.Inferred`.
    uncertainty : ndarray of uint8, shape (y, x), or None
        See `ensemble.Inferred`.
    """

    z: int
    lungs: Mask
    lesions: Mask
    probabilities: Mask | None
    entropy: float = math.nan
    uncertainty: Mask | None = None


class Thresholded(NamedTuple):
    """What the networks gave of a batch of slices, before it is cleaned.

    Attributes
    ----------
    lungs, lesions : ndarray of uint8, shape (n, y, x)
    probabilities, uncertainty : list of ndarray of uint8 or None
        Per slice (output, y, x) and (y, x), where they are wanted.
    entropies : list of float
    """

    lungs: Mask
    lesions: Mask
    probabilities: Sequence[Mask | None]
    uncertainty: list[Mask | None]
    entropies: list[float]


@dataclass(frozen=True, eq=False)
class Labeller:
    """Makes labels of slices; its methods may be called from several threads.

    Attributes
    ----------
    read_slice : callable
        z -> ndarray of int16, shape (y, x).
    ensemble : Ensemble
    appearance : Appearance
        Pictures are turned upright, and get a margin if they are cropped, before a network sees them; the
        labels lie on the slices as they were read.
    spacing : tuple of float, or None
        (y, x) in mm.
    thresholds : dict of str to float
        Of the outputs for which they are not the cards'.
    min_pixels : int
        Findings of fewer pixels are dropped.
    probabilities : bool
        Also return the probabilities.
    share : callable
        `map`, or one that shares the slices of a batch among threads.
    rules : frozenset of Rule
        What is put right in what the networks give; all that there is, unless a rule is to be measured.
    """

    read_slice: ReadSlice
    ensemble: Ensemble
    appearance: Appearance
    spacing: tuple[float, float] | None
    thresholds: dict[str, float]
    min_pixels: int = 0
    probabilities: bool = False
    share: Share = map
    rules: frozenset[Rule] = RULES

    @property
    def levels(self) -> dict[str, float]:
        """Probability from which a voxel is labelled, per output."""
        return {**self.ensemble.thresholds, **self.thresholds}

    def prepare(self, zs: list[int]) -> list[PreparedSlice]:
        """Read and prepare slices."""
        return list(self.share(self._prepare, zs))

    def infer(self, slices: list[PreparedSlice], adjust: Adjust | None = None) -> Thresholded:
        """Run the networks and threshold; those that crop see again what lies around the lungs.

        Parameters
        ----------
        slices : list of PreparedSlice
        adjust : callable, optional
            See `ensemble.infer`.
        """
        ensemble, outputs = self.ensemble, self.ensemble.card.outputs
        finder = ensemble.lungs_from
        if finder is not None:
            alone = Ensemble((finder,))
            first = infer(alone, slices).probability
            found, _ = to_labels(first, finder.card.outputs, alone.thresholds)
            slices = list(self.share(self._prepare_again, slices, found))
        inferred = infer(ensemble, slices, adjust)
        lungs, lesions = to_labels(inferred.probability, outputs, self.levels)
        if "lungs" not in outputs:
            lungs = np.stack(
                [
                    mine if slice_.lungs is None else slice_.lungs
                    for mine, slice_ in zip(lungs, slices, strict=True)
                ]
            )
        kept = list(as_bytes(inferred.probability)) if self.probabilities else [None] * len(slices)
        return Thresholded(lungs, lesions, kept, inferred.uncertainty, inferred.entropies)

    def label(self, slices: list[PreparedSlice], thresholded: Thresholded) -> list[SlicePrediction]:
        """Make labels of what the networks gave."""
        return list(self.share(self._label, zip(slices, *thresholded, strict=True)))

    def guided(self, predicted: SlicePrediction, guide: Guide) -> SlicePrediction:
        """Return a slice with the lesions that are likely beside corrected slices.

        Parameters
        ----------
        predicted : SlicePrediction
            With its probabilities.
        guide : Guide
            Nothing changes where no corrected slice is near, or where this one is corrected.

        Raises
        ------
        ValueError
            If the slice has no probabilities.
        """
        if not guide.near(predicted.z):
            return predicted
        if predicted.probabilities is None:
            raise ValueError(f"slice {predicted.z} has no probabilities")
        likely = guide(predicted.z, predicted.probabilities)
        # it turns with the slice; what is added around it holds nothing
        turned = replace(self.appearance, inverted=False)
        probability = np.stack([reorient(channel, turned, around=0) for channel in likely])
        _, lesions = to_labels(torch.from_numpy(probability)[None], self.ensemble.card.outputs, self.levels)
        voxels, lungs = (
            reorient(self.read_slice(predicted.z), self.appearance),
            reorient(predicted.lungs, turned, around=0),
        )
        return replace(predicted, lesions=reorient_back(self._lesions(lesions[0], lungs, voxels), turned))

    def _prepare(self, z: int) -> PreparedSlice:
        voxels = reorient(self.read_slice(z), self.appearance)
        finder = self.ensemble.lungs_from
        first = self.ensemble.models if finder is None else (finder,)
        return PreparedSlice(z, voxels, tuple(view(model, voxels, self.appearance) for model in first))

    def _prepare_again(self, prepared: PreparedSlice, found: Mask) -> PreparedSlice:
        lungs = self._lungs(found, prepared.voxels)
        views = tuple(view(model, prepared.voxels, self.appearance, lungs) for model in self.ensemble.models)
        return PreparedSlice(prepared.z, prepared.voxels, views, lungs)

    def _label(
        self, row: tuple[PreparedSlice, Mask, Mask, Mask | None, Mask | None, float]
    ) -> SlicePrediction:
        prepared, lungs, lesions, kept, unsure, entropy = row
        lungs = self._lungs(lungs, prepared.voxels)
        lesions = self._lesions(lesions, lungs, prepared.voxels)
        if self.appearance.intensity == "HU":  # pictures have no reliable orientation
            lungs = guess_sides(lungs)
        lungs, lesions = (reorient_back(part, self.appearance) for part in (lungs, lesions))
        kept, unsure = (
            None if part is None else reorient_back(part, self.appearance) for part in (kept, unsure)
        )
        return SlicePrediction(prepared.z, lungs, lesions, kept, entropy, unsure)

    def _lungs(self, lungs: Mask, voxels: npt.NDArray[np.int16]) -> Mask:
        if self.appearance.intensity == "HU" and "gas or fat" in self.rules:
            lungs = drop_gas_and_fat(lungs, voxels)
        return clean_lungs(lungs, self.spacing, self.rules)

    def _lesions(self, lesions: Mask, lungs: Mask, voxels: npt.NDArray[np.int16]) -> Mask:
        # without lungs there is nothing that findings could have to lie inside
        labels = self.ensemble.card.lesions if self.ensemble.knows_lungs else ()
        lesions = clean_lesions(lesions, lungs, labels, self.spacing, self.rules)
        if self.appearance.intensity == "HU" and self.spacing is not None:
            lesions = keep_raised(lesions, lungs, voxels, self.spacing, labels, self.rules)
        return drop_small(lesions, self.min_pixels)


def to_labels(probability: Tensor, outputs: tuple[str, ...], levels: dict[str, float]) -> tuple[Mask, Mask]:
    """Threshold probabilities on their device.

    Where ground-glass and consolidation are told apart, their union decides whether there is one of
    them, and the likelier, each in shares of its own threshold, names it. Where several findings are
    likely, the likeliest names the voxel.

    Parameters
    ----------
    probability : Tensor, shape (n, outputs, y, x)
    outputs : tuple of str
    levels : dict of str to float
        Probability from which a voxel is labelled, per output and for their union.

    Returns
    -------
    lungs, lesions : ndarray of uint8, shape (n, y, x)
        3 or 0; values of `labels.LESIONS`.
    """
    lungs = torch.zeros_like(probability[:, 0], dtype=torch.uint8)
    lesions = torch.zeros_like(lungs)
    best = torch.zeros_like(probability[:, 0])
    together = joins(outputs)
    if together:
        first, second = (probability[:, outputs.index(name)] for name in UNITED)
        best = united(probability, outputs)
        likelier = [lesion(name).value for name in UNITED]
        share = levels[UNITED[0]] / levels[UNITED[1]] if levels[UNITED[1]] else 1.0
        # in bytes: every other type takes several times as long on a CPU
        lesions = (
            ((second if share == 1 else second * share) > first)
            .byte()
            .mul_(likelier[1] - likelier[0])
            .add_(likelier[0])
        )
        lesions.mul_((best >= levels[UNION]).byte())
    for channel, name in enumerate(outputs):
        here = probability[:, channel]
        if name == "lungs":
            lungs = (here >= levels[name]).byte().mul_(UNDETERMINED)
        elif not (together and name in UNITED):
            likely = here >= levels[name]
            if not bool(likely.any()):
                continue
            wins = likely & ((here > best) | (lesions == 0))
            lesions.masked_fill_(wins, lesion(name).value)
            best = torch.where(wins, here, best)
    return lungs.cpu().numpy(), lesions.cpu().numpy()
