"""What becomes of slices between the scan and their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.predict.clean import clean_slice, drop_small, guess_sides
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.findings import keep_raised
from napari_covseg.predict.forward import Looked, Said, ask, lungs_of, view
from napari_covseg.predict.rules import RULES, Rule
from napari_covseg.predict.stand import lay, stand
from napari_covseg.predict.tissue import drop_gas_and_fat
from napari_covseg.scans.appearance import Appearance
from napari_covseg.scans.scan import Intensity

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
        1 right, 2 left, as far as one slice tells (see `clean.guess_sides`), 3 side undetermined.
    lesions : ndarray of uint8, shape (y, x)
        Values of `labels.LESIONS`.
    probabilities : ndarray of uint8, shape (output, y, x), or None
        0-255, in the order of the card's outputs.
    entropy : float
        Of the probability of any lesion, in bits summed over the slice's pixels; NaN if unknown.
    uncertainty : ndarray of uint8, shape (y, x), or None
        How unsure the models are of any lesion: see `forward.ask`.
    """

    z: int
    lungs: Mask
    lesions: Mask
    probabilities: Mask | None
    entropy: float = math.nan
    uncertainty: Mask | None = None


@dataclass(frozen=True, eq=False)
class Labeller:
    """Reads and prepares slices, asks the networks and cleans what they say; from several threads.

    Attributes
    ----------
    read_slice : callable
        z -> ndarray of int16, shape (y, x).
    ensemble : Ensemble
    thresholds : dict of str to float
        Of every output.
    appearance : Appearance
        Pictures are turned upright, and get a margin if they are cropped, before a network sees them; the
        labels lie on the slices as they were read.
    spacing : tuple of float, or None
        (y, x) in mm.
    probabilities : bool
        Also return the probabilities.
    min_pixels : int
        Findings of fewer pixels are dropped.
    share : callable
        `map`, or one that shares the slices of a batch among threads.
    rules : frozenset of Rule
        What is put right in what the networks say; all that there is, unless a rule is to be measured.
    """

    read_slice: ReadSlice
    ensemble: Ensemble
    thresholds: dict[str, float]
    appearance: Appearance
    spacing: tuple[float, float] | None
    probabilities: bool
    min_pixels: int
    share: Share = map
    rules: frozenset[Rule] = RULES

    @property
    def intensity(self) -> Intensity:
        """Whether voxels are HU or grey values."""
        return self.appearance.intensity

    def look(self, zs: list[int]) -> list[Looked]:
        """Read and prepare slices."""
        return list(self.share(self._look, zs))

    def ask(self, now: list[Looked]) -> Said:
        """Ask the networks; those that crop see again what lies around the lungs."""
        finder = self.ensemble.lungs_from
        if finder is not None:
            now = list(self.share(self._look_again, now, lungs_of(finder, now)))
        return ask(self.ensemble, now, self.thresholds, keep=self.probabilities)

    def clean(self, now: list[Looked], said: Said) -> list[SlicePrediction]:
        """Make labels of what the networks said."""
        return list(self.share(self._clean, zip(now, *said, strict=True)))

    def _look(self, z: int) -> Looked:
        voxels = stand(self.read_slice(z), self.appearance)
        finder = self.ensemble.lungs_from
        first = self.ensemble.models if finder is None else (finder,)
        return Looked(z, voxels, tuple(view(one, voxels, self.appearance) for one in first))

    def _look_again(self, now: Looked, found: Mask) -> Looked:
        lungs = self._lungs(found, now.voxels)
        lungs, _ = clean_slice(lungs, np.zeros_like(lungs), (), self.spacing, self.rules)
        views = tuple(view(one, now.voxels, self.appearance, lungs) for one in self.ensemble.models)
        return Looked(now.z, now.voxels, views, lungs)

    def _lungs(self, found: Mask, voxels: npt.NDArray[np.int16]) -> Mask:
        known = self.intensity == "HU" and "gas or fat" in self.rules
        return drop_gas_and_fat(found, voxels) if known else found

    def _clean(self, row: tuple[Looked, Mask, Mask, Mask | None, Mask | None, float]) -> SlicePrediction:
        now, lungs, lesions, kept, unsure, entropy = row
        # without lungs there is nothing that findings could have to lie inside
        labels = self.ensemble.card.lesions if self.ensemble.knows_lungs else ()
        lungs = self._lungs(lungs, now.voxels)
        lungs, lesions = clean_slice(lungs, lesions, labels, self.spacing, self.rules)
        if self.intensity == "HU" and self.spacing is not None:
            lesions = keep_raised(lesions, lungs, now.voxels, self.spacing, labels, self.rules)
        if self.intensity == "HU":  # pictures have no reliable orientation
            lungs = guess_sides(lungs)
        lesions = drop_small(lesions, self.min_pixels)
        lungs, lesions = (lay(part, self.appearance) for part in (lungs, lesions))
        kept, unsure = (None if part is None else lay(part, self.appearance) for part in (kept, unsure))
        return SlicePrediction(now.z, lungs, lesions, kept, entropy, unsure)
