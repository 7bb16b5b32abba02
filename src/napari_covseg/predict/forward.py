"""Prepared slices through the networks, and back onto the scan's grid as labels."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_covseg.labels import UNION, UNITED, joins, lesion
from napari_covseg.metrics.entropy import entropy_map, slice_entropy
from napari_covseg.models.file import Model
from napari_covseg.models.forward import restore
from napari_covseg.models.placement import Placement
from napari_covseg.predict.ensemble import Ensemble, united
from napari_covseg.scans.appearance import Appearance

Mask = npt.NDArray[np.uint8]


class View(NamedTuple):
    """A slice as one model sees it: the picture, and where it lies in the scan."""

    placement: Placement
    image: Mask


class Looked(NamedTuple):
    """A slice as all models see it.

    Attributes
    ----------
    z : int
    voxels : ndarray of int16, shape (y, x)
    views : tuple of View or None
        One per model; None where there is nothing for it to see.
    lungs : ndarray of uint8, shape (y, x), or None
        What the first pass has found, if there was one.
    """

    z: int
    voxels: npt.NDArray[np.int16]
    views: tuple[View | None, ...]
    lungs: Mask | None = None


class Said(NamedTuple):
    """What the models say of a batch of slices, before it is cleaned.

    Attributes
    ----------
    lungs, lesions : ndarray of uint8, shape (n, y, x)
    probabilities, uncertainty : list of ndarray of uint8 or None
        Per slice (output, y, x) and (y, x), where they were asked for.
    entropies : list of float
        See `SlicePrediction.entropy`.
    """

    lungs: Mask
    lesions: Mask
    probabilities: list[Mask | None]
    uncertainty: list[Mask | None]
    entropies: list[float]


class _Voice(NamedTuple):
    """What one model says: the mean of its opinions, and of any finding their mean and variance."""

    mean: Tensor
    finding: Tensor | None = None
    variance: Tensor | None = None


def view(
    model: Model, voxels: npt.NDArray[np.int16], appearance: Appearance, lungs: Mask | None = None
) -> View | None:
    """Prepare a slice, shape (y, x), for a model; None where it has nothing to see.

    Parameters
    ----------
    model : Model
    voxels : ndarray of int16, shape (y, x)
    appearance : Appearance
    lungs : ndarray of uint8, shape (y, x), optional
        Not 0 where the first pass has found lung.
    """
    placement = model.preparation.place(voxels.shape, lungs)
    if placement is None:
        return None
    return View(
        placement, model.preparation(voxels, appearance.intensity, placement, equalised=appearance.equalised)
    )


@torch.inference_mode()
def lungs_of(model: Model, slices: list[Looked]) -> Mask:
    """Return where a model finds lungs on slices of which it has the only view, uint8 (n, y, x): 3 or 0."""
    alone = Ensemble((model,))
    return ask(alone, slices, alone.thresholds, keep=False).lungs


@torch.inference_mode()
def ask(ensemble: Ensemble, slices: list[Looked], levels: dict[str, float], *, keep: bool) -> Said:
    """Run the networks and threshold on the device; only uint8 leaves it, and entropies.

    Parameters
    ----------
    ensemble : Ensemble
    slices : list of Looked
    levels : dict of str to float
        Probability from which a voxel is labelled, per output.
    keep : bool
        Also return the probabilities.
    """
    height, width = slices[0].voxels.shape
    shape = (height, width)
    voices, coarse = [], None
    for number, model in enumerate(ensemble.models):
        views = [slice_.views[number] for slice_ in slices]
        voice = _voice(ensemble, model, [view.image for view in views if view is not None])
        if len(ensemble.models) == 1 and _all_whole(views):
            coarse = None if voice is None else voice.mean
        voices.append(_on_scan(ensemble, voice, views, shape))
    probability = _mean([voice.mean for voice in voices])
    entropies = _entropies(ensemble, probability if coarse is None else coarse, shape)
    lungs, lesions = (
        labels.cpu().numpy() for labels in thresholded(probability, ensemble.card.outputs, levels)
    )
    none: list[Mask | None] = [None] * len(slices)
    kept = list(_as_bytes(probability)) if keep else none
    unsure = list(_uncertainty(ensemble, voices)) if ensemble.uncertainty else none
    if "lungs" not in ensemble.card.outputs:
        lungs = np.stack([lungs[row] if one.lungs is None else one.lungs for row, one in enumerate(slices)])
    return Said(lungs, lesions, kept, unsure, entropies)


def _voice(ensemble: Ensemble, model: Model, images: list[Mask]) -> _Voice | None:
    """Return what a model says, on its own grid; None if it has nothing to look at."""
    if not images:
        return None
    opinions = list(ensemble.opinions(model, images))
    if not ensemble.uncertainty:
        return _Voice(_mean(opinions))
    found = torch.stack([ensemble.finding(opinion) for opinion in opinions], 1)
    variance = found.var(1, correction=0, keepdim=True)
    return _Voice(_mean(opinions), found.mean(1, keepdim=True), variance)


def _on_scan(
    ensemble: Ensemble, voice: _Voice | None, views: list[View | None], shape: tuple[int, int]
) -> _Voice:
    """Bring what a model says to the scan's grid; nothing is said of what it has not seen."""
    if voice is None:
        nothing = torch.zeros(len(views), len(ensemble.card.outputs), *shape, device=ensemble.device)
        empty = nothing[:, :1] if ensemble.uncertainty else None
        return _Voice(nothing, empty, empty)
    restored = [None if values is None else _restored(values, views, shape) for values in voice]
    return _Voice(*restored)  # type: ignore[arg-type]


def _restored(values: Tensor, views: list[View | None], shape: tuple[int, int]) -> Tensor:
    first = views[0]
    if first is not None and all(view is not None and view.placement == first.placement for view in views):
        return restore(values, first.placement)
    full = values.new_zeros((len(views), values.shape[1], *shape))
    parts = iter(values.split(1))
    for row, view in enumerate(views):
        if view is not None:
            full[row] = restore(next(parts), view.placement)[0]
    return full


def _all_whole(views: list[View | None]) -> bool:
    return all(
        view is not None and (view.placement.height, view.placement.width) == view.placement.shape
        for view in views
    )


def _mean(values: list[Tensor]) -> Tensor:
    return values[0] if len(values) == 1 else torch.stack(values).mean(0)


def thresholded(
    probability: Tensor, outputs: tuple[str, ...], levels: dict[str, float]
) -> tuple[Tensor, Tensor]:
    """Threshold probabilities, shape (n, outputs, y, x): lungs (3 or 0) and lesions, uint8 (n, y, x).

    Where ground-glass and consolidation are told apart, their union decides whether there is one of
    them, and the likelier names it. Where several findings are likely, the likeliest names the voxel.
    """
    lungs = torch.zeros_like(probability[:, 0], dtype=torch.uint8)
    lesions = torch.zeros_like(lungs)
    best = torch.zeros_like(probability[:, 0])
    together = joins(outputs)
    if together:
        first, second = (probability[:, outputs.index(name)] for name in UNITED)
        best = united(probability, outputs)
        found = best >= levels[UNION]
        names = torch.where(second > first, lesion(UNITED[1]).value, lesion(UNITED[0]).value)
        lesions = torch.where(found, names, 0).byte()
    for channel, name in enumerate(outputs):
        here = probability[:, channel]
        if name == "lungs":
            lungs = (here >= levels[name]).byte().mul_(3)
        elif not (together and name in UNITED):
            wins = (here >= levels[name]) & ((here > best) | (lesions == 0))
            lesions.masked_fill_(wins, lesion(name).value)
            best = torch.where(wins, here, best)
    return lungs, lesions


def _uncertainty(ensemble: Ensemble, voices: list[_Voice]) -> Mask:
    """Return how far the opinions on a finding lie apart, uint8 (n, y, x).

    Their standard deviation, of which 0.5 is the most that there can be and becomes 255. Of
    one opinion alone it is the entropy, of which 1 bit becomes 255.
    """
    means = torch.cat([voice.finding for voice in voices if voice.finding is not None], 1)
    if ensemble.members == 1:
        return entropy_map(_as_bytes(means[:, 0]))
    # the variance of all is that inside of each model and that between them
    within = torch.cat([voice.variance for voice in voices if voice.variance is not None], 1).mean(1)
    return _as_bytes(2 * (within + means.var(1, correction=0)).sqrt())


def _as_bytes(share: Tensor) -> Mask:
    return np.asarray(share.mul(255).round_().byte().cpu().numpy(), np.uint8)


def _entropies(ensemble: Ensemble, probability: Tensor, shape: tuple[int, int]) -> list[float]:
    """Entropy of each slice, counted on the grid of the probabilities and given for the scan's."""
    if len(ensemble.card.outputs) == 1 and "lungs" in ensemble.card.outputs:
        return [math.nan] * len(probability)
    findings = _as_bytes(ensemble.finding(probability))
    side = max(probability.shape[-2:])
    pixels = (max(shape) / side) ** 2
    return [pixels * slice_entropy(finding) for finding in findings]
