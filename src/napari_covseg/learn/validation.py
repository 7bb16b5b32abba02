"""How right a network is on slices that it does not learn from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from napari_covseg.learn.loss import Loss
from napari_covseg.learn.training_set import UNKNOWN, TrainingSet
from napari_covseg.models.forward import as_input, heads, stacked

SCANNED = tuple(round(0.05 * k, 2) for k in range(1, 20))
"""Thresholds that are tried: 0.05, 0.10 … 0.95 (Yazdekhasty 2020's own steps)."""


def validate(
    network: nn.Module, slices: TrainingSet, device: str = "cpu", loss: Loss | None = None, batch: int = 4
) -> tuple[dict[str, float], float]:
    """Return the Dice per output as `score` has it, and the mean loss over the slices (NaN without one)."""
    dice, value = _measure(network, slices, np.full((len(slices.outputs), 1), 0.5), device, loss, batch)
    return _named(dice, slices), value


def score(
    network: nn.Module,
    slices: TrainingSet,
    device: str = "cpu",
    batch: int = 4,
    thresholds: Mapping[str, float] | None = None,
) -> dict[str, float]:
    """Dice per output that is known in any patient, pooled over each patient and then averaged over them.

    Parameters
    ----------
    network : Module
    slices : TrainingSet
    device : str
        Where the network is.
    batch : int
    thresholds : mapping of str to float, optional
        Probability from which a pixel is labelled, per output; 0.5 by default.
    """
    cuts = [[(thresholds or {}).get(name, 0.5)] for name in slices.outputs]
    dice, _ = _measure(network, slices, np.array(cuts), device, None, batch)
    return _named(dice, slices)


def choose_thresholds(
    network: nn.Module, slices: TrainingSet, device: str = "cpu", batch: int = 4
) -> dict[str, float]:
    """Return the threshold of each output with the best Dice; of several, that nearest to 0.5.

    The slices must be those of validation patients: a threshold that test patients have
    chosen is measured on them no more.
    """
    dice, _ = _measure(network, slices, np.tile(SCANNED, (len(slices.outputs), 1)), device, None, batch)
    order = sorted(range(len(SCANNED)), key=lambda k: abs(SCANNED[k] - 0.5))
    return {
        name: SCANNED[max(order, key=lambda k: round(float(means[k]), 6))]
        for name, means in zip(slices.outputs, _mean(dice), strict=True)
    }


def _named(dice: npt.NDArray[np.float64], slices: TrainingSet) -> dict[str, float]:
    """Return the mean over the patients of each output that is known in any of them."""
    known = np.asarray(np.isfinite(dice[..., 0]).any(axis=0))
    means = _mean(dice)[:, 0].tolist()
    return {name: mean for name, mean, some in zip(slices.outputs, means, known, strict=True) if some}


def _mean(dice: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Average over the patients in whom an output is known; 0 where it is in none."""
    known = np.isfinite(dice)
    return np.asarray(np.where(known, dice, 0).sum(0) / np.maximum(known.sum(0), 1))


@torch.inference_mode()
def _measure(
    network: nn.Module,
    slices: TrainingSet,
    thresholds: npt.NDArray[np.float64],
    device: str,
    loss: Loss | None,
    batch: int,
) -> tuple[npt.NDArray[np.float64], float]:
    """Dice at each threshold, (patients, outputs, thresholds), pooled over each patient; and the loss."""
    network.eval()
    patients, rows = np.unique(slices.patients, return_inverse=True)
    both, total = np.zeros((2, len(patients), *thresholds.shape))
    there = np.zeros((len(patients), len(slices.outputs)), np.bool_)
    cuts = torch.logit(torch.from_numpy(thresholds)).float().to(device)
    losses = 0.0
    for start in range(0, len(slices), batch):
        part = slice(start, start + batch)
        logits = heads(network, as_input(slices.images[part], device))
        masks = torch.from_numpy(slices.masks[part]).to(device)
        known, truth = masks != UNKNOWN, masks == 1
        if loss is not None:
            losses += float(loss(logits, masks)) * len(masks)
        said = stacked(logits, slices.outputs)
        np.logical_or.at(there, rows[part], known.any(3).any(2).cpu().numpy())
        for k in range(thresholds.shape[1]):
            predicted = (said >= cuts[:, k, None, None]) & known
            found = (predicted & truth).sum((2, 3)).cpu().numpy()
            np.add.at(both[..., k], rows[part], found)
            np.add.at(total[..., k], rows[part], (predicted.sum((2, 3)) + truth.sum((2, 3))).cpu().numpy())
    dice = np.where(total > 0, 2 * both / np.maximum(total, 1), 1.0)
    dice[~there] = np.nan  # a patient in whom nobody has looked for it
    return dice, losses / len(slices) if loss is not None else float("nan")
