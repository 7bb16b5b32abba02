"""What a network says of slices it has not seen, and how right that is, patient by patient."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from napari_covseg.learn.training_set import PLAIN, TrainingSet
from napari_covseg.learn.validation import SCANNED
from napari_covseg.metrics.overlap import count, overlaps
from napari_covseg.metrics.surface import average, farthest, joined, surfaces, within
from napari_covseg.models.file import Model

Probabilities = npt.NDArray[np.uint8]
Masks = npt.NDArray[np.bool_]

TOLERANCE = 2.0
"""Of the surface Dice, in pixels."""


@torch.inference_mode()
def probabilities(model: Model, slices: TrainingSet) -> Probabilities:
    """Return what a model says of slices, on the slices' own grid.

    The network sees them at its own size; its probabilities, never its labels, are resized back.

    Returns
    -------
    ndarray of uint8, shape (n, len(PLAIN), size, size)
        255 is certain.
    """
    images = slices.prepared(model.preparation).images
    said = np.zeros(slices.masks.shape, np.uint8)
    grid = slices.images.shape[1:]
    batch = 4 if model.device.type == "cpu" else 32
    for start in range(0, len(images), batch):
        inputs = torch.from_numpy(images[start : start + batch]).to(model.device).unsqueeze(1).float()
        logits = model.network(inputs.div_(255).contiguous(memory_format=torch.channels_last))
        there = torch.cat([logits[name] for name in PLAIN], 1).float().sigmoid()
        if there.shape[2:] != grid:
            there = F.interpolate(there.contiguous(), grid, mode="bilinear", align_corners=False)
        said[start : start + batch] = there.mul(255).round().byte().cpu().numpy()
    return said


def choose_thresholds(said: Probabilities, truth: Masks, patients: npt.NDArray[np.str_]) -> dict[str, float]:
    """Return each output's threshold with the best Dice: of several, that nearest to 0.5.

    Dice is pooled over each patient and averaged, for 0.05, 0.10 … 0.95. These must be
    validation patients: what test patients have chosen cannot be measured on them.
    """
    chosen = {}
    for channel, name in enumerate(PLAIN):
        dice = np.zeros((0, len(SCANNED)))
        for patient in np.unique(patients):
            rows = patients == patient
            both, found = (
                np.bincount(values, minlength=256)[::-1].cumsum()[::-1]
                for values in (said[rows, channel][truth[rows, channel]], said[rows, channel].ravel())
            )
            least = np.ceil(np.array(SCANNED) * 255 - 1e-9).astype(int)
            total = found[least] + both[0]
            dice = np.vstack([dice, np.where(total > 0, 2 * both[least] / np.maximum(total, 1), 1.0)])
        means = dice.mean(0).round(6)
        chosen[name] = min(SCANNED, key=lambda t: (-means[SCANNED.index(t)], abs(t - 0.5)))
    return chosen


def labelled(said: Probabilities, thresholds: dict[str, float], min_pixels: int = 0) -> Masks:
    """Return where probabilities reach the thresholds, and nothing else: no cleaning.

    A slice with fewer lesion pixels than `min_pixels` (of a recipe) has none.
    """
    least = np.ceil(np.array([thresholds[name] for name in PLAIN]) * 255 - 1e-9)
    found = np.asarray(said >= least[:, None, None], np.bool_)
    if min_pixels:
        lesion = found[:, PLAIN.index("lesion")]
        lesion[np.count_nonzero(lesion, (1, 2)) < min_pixels] = False
    return found


def patient_rows(found: Masks, truth: Masks, people: npt.NDArray[np.str_]) -> list[dict[str, Any]]:
    """Measure every patient.

    Parameters
    ----------
    found, truth : ndarray of bool, shape (n, len(PLAIN), y, x)
    people : ndarray of str, shape (n,)

    Returns
    -------
    list of dict
        ``patient``, ``slices``, and for each output what `_measured` returns.
    """
    rows = []
    for patient in sorted(set(people.tolist())):
        mine = people == patient
        row: dict[str, Any] = {"patient": patient, "slices": int(mine.sum())}
        for channel, name in enumerate(PLAIN):
            row[name] = _measured(found[mine, channel], truth[mine, channel])
        rows.append(row)
    return rows


def _measured(found: Masks, truth: Masks) -> dict[str, Any]:
    """Return one output of one patient as JSON holds it; null is a figure without a value.

    Overlap and distances are those of all slices at once, distances slice by slice in pixels;
    ``alone`` counts the slices that they leave out because one mask is empty and the other is
    not. ``by_slice`` has true positives, false positives and false negatives of each slice,
    ``assd_by_slice`` its distance.
    """
    apart = [surfaces(a, b, (1.0, 1.0)) for a, b in zip(found, truth, strict=True)]
    together = joined(apart)
    values = overlaps(count(found, truth))
    values |= {"assd": average(together), "hd95": farthest(together)}
    values["surface_dice"] = within(together, TOLERANCE, math.nan)
    counts = [count(a, b) for a, b in zip(found, truth, strict=True)]
    return {
        **{name: _short(value) for name, value in values.items()},
        "alone": together.alone,
        "by_slice": [[c.tp, c.fp, c.fn] for c in counts],
        "assd_by_slice": [_short(average(one), 2) for one in apart],
    }


def _short(value: float, digits: int = 4) -> float | None:
    return round(value, digits) if math.isfinite(value) else None
