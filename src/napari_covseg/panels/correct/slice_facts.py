"""What is known of each slice of the open case: its state, how much is found there, how sure the model is."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from napari_covseg.cases import OpenCase, Run
from napari_covseg.edit.order import SliceFeatures
from napari_covseg.errors import CaseError


class SliceFacts:
    """Facts by slice, computed again only where something has changed.

    Parameters
    ----------
    case : OpenCase

    Attributes
    ----------
    area : ndarray of int64, shape (z,)
        Voxels of findings.
    lung : ndarray of bool, shape (z,)
        Whether there is lung.
    entropy : ndarray of float64, shape (z,)
        Of the model's lesion probability, in bits summed over the slice; NaN where unknown.
    disagreement : ndarray of float64, shape (z,)
        Pixels in which the findings differ from those of the next slice.
    """

    def __init__(self, case: OpenCase) -> None:
        self._case = case
        count = len(case.voxels)
        self.area = np.zeros(count, np.int64)
        self.lung = np.zeros(count, np.bool_)
        self.entropy = np.full(count, np.nan)
        self.disagreement = np.zeros(count)
        self._run: Run | None = None
        self.recount(range(count))

    def recount(self, slices: Iterable[int]) -> None:
        """Count findings and lungs again on these slices."""
        lesions, lungs = self._case.live["lesions"], self._case.live["lungs"]
        last = len(lesions) - 1
        for z in slices:
            self.area[z] = np.count_nonzero(lesions[z])
            self.lung[z] = lungs[z].any()
        for z in {z for changed in slices for z in (changed - 1, changed) if 0 <= z < last}:
            self.disagreement[z] = np.count_nonzero((lesions[z] > 0) != (lesions[z + 1] > 0))

    def use_run(self, run: Run | None) -> None:
        """Take what a prediction knows, and forget those of the one before."""
        if run is None or self._run is None or run.id != self._run.id:
            self.entropy[:] = np.nan
        self._run = run

    def read_uncertainty(self, slices: Iterable[int]) -> bool:
        """Read how sure the model was on these slices; return whether anything is known now."""
        if self._run is None:
            return False
        known = False
        for z in slices:
            try:
                self.entropy[z] = self._run.read_entropy(z)
            except CaseError:
                continue  # damaged: then nothing is known of it
            known |= not np.isnan(self.entropy[z])
        return known

    def features(self) -> SliceFeatures:
        """Return what the strategies for the next slice want to know."""
        shown = self.lung | (self.area > 0)
        # without probabilities, a slice with much to correct is what is most uncertain
        entropy = np.where(np.isnan(self.entropy), self.area, self.entropy)
        return SliceFeatures(entropy, self.disagreement, shown)
