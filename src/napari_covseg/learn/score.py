"""Probabilities of labelled slices, and how right they are: Dice at any threshold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.learn.loss import Loss
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, heads, stacked, to_probabilities

Probabilities = npt.NDArray[np.uint8]
"""255 is certain."""
SCANNED = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Thresholds that are tried: 0.05, 0.10 … 0.95 (Yazdekhasty 2020's own steps)."""


@torch.inference_mode()
def probabilities(
    network: nn.Module,
    images: npt.NDArray[np.uint8],
    outputs: Sequence[str],
    device: str | torch.device = "cpu",
    *,
    size: int | None = None,
    batch: int = 4,
    each: Callable[[slice, Mapping[str, Tensor]], None] | None = None,
) -> Probabilities:
    """Return the probabilities of outputs on prepared slices.

    Parameters
    ----------
    network : Module
        Put into evaluation mode.
    images : ndarray of uint8, shape (n, height, width)
    outputs : sequence of str
    device : str or torch.device
        Where the network is.
    size : int, optional
        Height and width that the probabilities (never labels) are resized to; by default those of the images.
    batch : int
    each : callable, optional
        Gets the rows and the logits of every batch.

    Returns
    -------
    ndarray of uint8, shape (n, outputs, size, size)
    """
    network.eval()
    shape = images.shape[1:] if size is None else (size, size)
    found = np.zeros((len(images), len(outputs), *shape), np.uint8)
    for start in range(0, len(images), batch):
        part = slice(start, start + batch)
        logits = heads(network, as_input(images[part], device))
        if each is not None:
            each(part, logits)
        values = to_probabilities(stacked(logits, outputs), "segmentation")
        if values.shape[2:] != shape:
            values = F.interpolate(values.contiguous(), shape, mode="bilinear", align_corners=False)
        found[part] = values.mul_(255).round_().byte().cpu().numpy()
    return found


def model_probabilities(model: Model, images: npt.NDArray[np.uint8]) -> Probabilities:
    """Return what `probabilities` gives for a model's own outputs."""
    return probabilities(model.network, images, model.card.outputs, model.device)


def least(threshold: float) -> int:
    """Return the smallest of the 255 parts of a probability that reaches a threshold."""
    return int(np.ceil(threshold * 255 - 1e-9))


def dice_by_patient(
    found: Probabilities, slices: LabelledSlices, thresholds: Sequence[Sequence[float]]
) -> npt.NDArray[np.float64]:
    """Return the Dice of each patient, pooled over the known pixels of all slices; 1 for two empty masks.

    Parameters
    ----------
    found : ndarray of uint8, shape (n, outputs, y, x)
    slices : LabelledSlices
    thresholds : sequence of sequences of float, shape (outputs, t)

    Returns
    -------
    ndarray of float, shape (patients, outputs, t)
        NaN where nothing of an output is known of a patient.
    """
    levels = np.array([[least(t) for t in row] for row in thresholds])
    patients = np.unique(slices.patients)
    dice = np.full((len(patients), *levels.shape), np.nan)
    for row, patient in enumerate(patients):
        mine = slices.patients == patient
        for channel, level in enumerate(levels):
            masks, values = slices.masks[mine, channel], found[mine, channel]
            if not (known := masks != UNKNOWN).any():
                continue
            # how many pixels reach each of the 256 values
            true, all_known = (
                np.bincount(values[where], minlength=256)[::-1].cumsum()[::-1]
                for where in (masks == 1, known)
            )
            total = all_known[level] + true[0]
            dice[row, channel] = np.where(total > 0, 2 * true[level] / np.maximum(total, 1), 1.0)
    return dice


def score(
    found: Probabilities, slices: LabelledSlices, thresholds: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Return the mean Dice over the patients, of each output that is known in any of them.

    Parameters
    ----------
    found : ndarray of uint8, shape (n, outputs, y, x)
    slices : LabelledSlices
    thresholds : mapping of str to float, optional
        Probability from which a pixel is labelled, per output; 0.5 by default.
    """
    cuts = [[(thresholds or {}).get(name, 0.5)] for name in slices.outputs]
    columns = zip(slices.outputs, dice_by_patient(found, slices, cuts)[..., 0].T, strict=True)
    return {name: float(np.nanmean(dice)) for name, dice in columns if np.isfinite(dice).any()}


def choose_thresholds(found: Probabilities, slices: LabelledSlices) -> dict[str, float]:
    """Return the threshold of each output with the best mean Dice; of several, that nearest to 0.5.

    The slices must be those of validation patients: a threshold that test patients have
    chosen is measured on them no more.
    """
    chosen = {}
    every = dice_by_patient(found, slices, [SCANNED] * len(slices.outputs))
    for name, dice in zip(slices.outputs, every.transpose(1, 0, 2), strict=True):
        known = dice[np.isfinite(dice).all(1)]
        means = known.mean(0).round(6) if len(known) else np.zeros(len(SCANNED))
        chosen[name] = min((-mean, abs(t - 0.5), t) for mean, t in zip(means, SCANNED, strict=True))[2]
    return chosen


def validate(
    network: nn.Module, slices: LabelledSlices, device: str = "cpu", loss: Loss | None = None, batch: int = 4
) -> tuple[dict[str, float], float]:
    """Return what `score` gives at 0.5, and the mean loss over the slices (NaN without one)."""
    losses = []

    def measure(part: slice, logits: Mapping[str, Tensor]) -> None:
        masks = torch.from_numpy(slices.masks[part]).to(device)
        losses.append(float(loss(logits, masks)) * len(masks) if loss is not None else np.nan)

    found = probabilities(network, slices.images, slices.outputs, device, batch=batch, each=measure)
    return score(found, slices), float(np.sum(losses)) / len(slices)


def count_by_slice(model: Model, slices: LabelledSlices) -> npt.NDArray[np.int64]:
    """Return what Dice is made of, slice by slice, at the card's thresholds.

    Returns
    -------
    ndarray of int64, shape (n, outputs, 3)
        Known pixels that are both found and labelled, found, and labelled.
    """
    levels = [least(model.card.thresholds.get(name, 0.5)) for name in slices.outputs]
    found = model_probabilities(model, slices.images) >= np.array(levels)[:, None, None]
    known, true = slices.masks != UNKNOWN, slices.masks == 1
    parts = (found & true, found & known, true)
    return np.stack([part.sum((2, 3), dtype=np.int64) for part in parts], -1)


def score_model(model: Model, slices: LabelledSlices) -> dict[str, float]:
    """Return what `score` gives at the card's thresholds, pooled over all slices."""
    together = replace(slices, patients=np.full(len(slices), ""))
    return score(model_probabilities(model, slices.images), together, model.card.thresholds)
