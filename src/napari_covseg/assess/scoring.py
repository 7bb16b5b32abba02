"""What a network says of slices it has not seen, and how right that is, patient by patient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from napari_covseg.learn.training_set import UNKNOWN, TrainingSet
from napari_covseg.learn.validation import SCANNED
from napari_covseg.metrics.overlap import Counts, count, overlaps
from napari_covseg.metrics.surface import average, farthest, joined, surfaces, within
from napari_covseg.models import forward
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input

Probabilities = npt.NDArray[np.uint8]
Found = npt.NDArray[np.bool_]
Truth = npt.NDArray[np.uint8] | npt.NDArray[np.bool_]
"""1 labelled, 0 not, `UNKNOWN` unknown: see `learn.training_set.TrainingSet.masks`."""

TOLERANCE = 2.0
"""Of the surface Dice, in pixels."""


@torch.inference_mode()
def probabilities(model: Model, slices: TrainingSet) -> Probabilities:
    """Return what a model says of slices, on the slices' own grid.

    The network sees them at its own size and as its own preparation makes them; its probabilities,
    never its labels, are resized back.

    Returns
    -------
    ndarray of uint8, shape (n, len(slices.outputs), size, size)
        255 is certain.
    """
    images = slices.prepared(model.preparation).images
    said = np.zeros(slices.masks.shape, np.uint8)
    grid = slices.images.shape[1:]
    batch = 4 if model.device.type == "cpu" else 32
    for start in range(0, len(images), batch):
        inputs = as_input(images[start : start + batch], model.device)
        there = forward.probabilities(model.network, inputs, slices.outputs)
        if there.shape[2:] != grid:
            there = F.interpolate(there.contiguous(), grid, mode="bilinear", align_corners=False)
        said[start : start + batch] = there.mul(255).round().byte().cpu().numpy()
    return said


def choose_thresholds(
    said: Probabilities, truth: Truth, patients: npt.NDArray[np.str_], outputs: Sequence[str]
) -> dict[str, float]:
    """Return each output's threshold with the best Dice: of several, that nearest to 0.5.

    Dice is pooled over the known pixels of each patient and averaged over the patients in whom the
    output is known, for 0.05, 0.10 … 0.95. These must be validation patients: what test patients have
    chosen cannot be measured on them.
    """
    chosen = {}
    for channel, name in enumerate(outputs):
        dice = np.zeros((0, len(SCANNED)))
        for patient in np.unique(patients):
            rows = patients == patient
            mine = truth[rows, channel]
            if not (known := mine != UNKNOWN).any():
                continue
            both, found = (
                np.bincount(values, minlength=256)[::-1].cumsum()[::-1]
                for values in (said[rows, channel][mine == 1], said[rows, channel][known])
            )
            least = np.ceil(np.array(SCANNED) * 255 - 1e-9).astype(int)
            total = found[least] + both[0]
            dice = np.vstack([dice, np.where(total > 0, 2 * both[least] / np.maximum(total, 1), 1.0)])
        means = dice.mean(0).round(6) if len(dice) else np.zeros(len(SCANNED))
        chosen[name] = min(SCANNED, key=lambda t: (-means[SCANNED.index(t)], abs(t - 0.5)))
    return chosen


def labelled(
    said: Probabilities, thresholds: dict[str, float], outputs: Sequence[str], min_pixels: int = 0
) -> Found:
    """Return where probabilities reach the thresholds, and nothing else: no cleaning.

    A slice with fewer pixels of a finding than `min_pixels` (of a recipe) has none of it.
    """
    least = np.ceil(np.array([thresholds[name] for name in outputs]) * 255 - 1e-9)
    found = np.asarray(said >= least[:, None, None], np.bool_)
    for channel, name in enumerate(outputs):
        if min_pixels and name != "lungs":
            few = np.count_nonzero(found[:, channel], (1, 2)) < min_pixels
            found[few, channel] = False
    return found


def patient_rows(
    found: Found, truth: Truth, people: npt.NDArray[np.str_], outputs: Sequence[str]
) -> list[dict[str, Any]]:
    """Measure every patient.

    Parameters
    ----------
    found : ndarray of bool, shape (n, len(outputs), y, x)
    truth : ndarray of uint8 or bool, same shape
        1 labelled, 0 not, `UNKNOWN` unknown: such pixels are left out.
    people : ndarray of str, shape (n,)
    outputs : sequence of str

    Returns
    -------
    list of dict
        ``patient``, ``slices``, and for each output what `_measured` returns: None for a patient of
        whom nobody has said where the output is.
    """
    rows = []
    for patient in sorted(set(people.tolist())):
        mine = people == patient
        row: dict[str, Any] = {"patient": patient, "slices": int(mine.sum())}
        for channel, name in enumerate(outputs):
            row[name] = _measured(found[mine, channel], truth[mine, channel])
        rows.append(row)
    return rows


def _measured(found: Found, truth: Truth) -> dict[str, Any] | None:
    """Return one output of one patient as JSON holds it; null is a figure without a value.

    Overlap and distances are those of all slices at once, distances slice by slice in pixels and
    only of slices that are known whole; ``alone`` counts the slices that they leave out because one
    mask is empty and the other is not. ``by_slice`` has true positives, false positives and false
    negatives of each slice, and the true negatives as well where part of the slice is unknown; null
    if nothing of it is known. ``assd_by_slice`` has its distance. Of an output that a patient does not
    have, only what is painted wrongly can be said: see `comparison.Network.by_patient`.
    """
    known = truth != UNKNOWN
    if not known.any():
        return None
    there = truth == 1
    whole, part = known.all((1, 2)), known.any((1, 2))
    apart = [
        surfaces(a, b, (1.0, 1.0)) if all_of_it else None
        for a, b, all_of_it in zip(found, there, whole, strict=True)
    ]
    together = joined([one for one in apart if one is not None])
    counts = [count(a[k], b[k]) for a, b, k in zip(found, there, known, strict=True)]
    values = overlaps(sum(counts, Counts(0, 0, 0, 0)))
    values |= {"assd": average(together), "hd95": farthest(together)}
    values["surface_dice"] = within(together, TOLERANCE, math.nan)
    if not there.any():
        values |= dict.fromkeys(("dice", "jaccard", "f1", "surface_dice"), math.nan)
    by_slice = []
    for c, all_of_it, some in zip(counts, whole, part, strict=True):
        numbers = [c.tp, c.fp, c.fn] if all_of_it else [c.tp, c.fp, c.fn, c.tn]
        by_slice.append(numbers if some else None)
    return {
        **{name: _short(value) for name, value in values.items()},
        "alone": together.alone,
        "by_slice": by_slice,
        "assd_by_slice": [None if one is None else _short(average(one), 2) for one in apart],
    }


def _short(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
