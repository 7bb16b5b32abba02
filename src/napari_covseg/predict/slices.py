"""Scan in, labelled slices out, one batch at a time."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.errors import JobError
from napari_covseg.metrics.entropy import slice_entropy
from napari_covseg.models.file import Model
from napari_covseg.predict.clean import clean_slice
from napari_covseg.predict.findings import keep_raised
from napari_covseg.predict.order import SliceOrder
from napari_covseg.predict.tissue import drop_gas_and_fat
from napari_covseg.scans.scan import Intensity

_log = logging.getLogger(__name__)

Voxels = npt.NDArray[np.int16]
Mask = npt.NDArray[np.uint8]
ReadSlice = Callable[[int], Voxels]

_WORKERS = max(2, min(8, os.cpu_count() or 2))


class _Prepared(NamedTuple):
    """A slice as it was read, and as the network wants it."""

    z: int
    voxels: Voxels
    image: Mask


@dataclass(frozen=True, eq=False)
class SlicePrediction:
    """Labels of one slice.

    Attributes
    ----------
    z : int
    lungs : ndarray of uint8, shape (y, x)
        3 (side undetermined) where there is lung; the sides come with the last pass in 3-D.
    lesions : ndarray of uint8, shape (y, x)
        Values of `labels.LESIONS`.
    probabilities : ndarray of uint8, shape (output, y, x), or None
        0-255, in the order of the card's outputs.
    entropy : float
        Of the probability of any lesion, in bits summed over the slice's pixels; NaN if unknown.
    """

    z: int
    lungs: npt.NDArray[np.uint8]
    lesions: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.uint8] | None
    entropy: float = math.nan


def default_batch(device: torch.device) -> int:
    """Slices per pass: few on a CPU, where more gain nothing and delay a cancel."""
    return 32 if device.type == "cuda" else 4


def rehearse(model: Model) -> None:
    """Label one batch of empty slices, so that the first real one need not wait.

    The first pass of a network chooses its kernels and takes the memory that later ones use again.
    """
    size = model.preparation.size
    empty = [np.zeros((size, size), np.uint8)] * default_batch(model.device)
    try:
        _infer(model, empty, (size, size), model.card.thresholds, False)
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):  # with real slices the batch is halved
            raise


def predict_slices(
    read_slice: ReadSlice,
    model: Model,
    order: SliceOrder,
    *,
    intensity: Intensity = "HU",
    spacing: tuple[float, float] | None = None,
    batch: int | None = None,
    thresholds: dict[str, float] | None = None,
    probabilities: bool = False,
    notice: Callable[[str], None] = _log.warning,
) -> Iterator[list[SlicePrediction]]:
    """Label the slices that `order` hands out, nearest to its focus first.

    The first batch is a single slice, so that it appears at once. Slices are read, prepared
    and cleaned in threads: on a GPU while the network works, on a CPU between two batches.
    When the device runs out of memory the batch is halved and nothing is lost.

    Parameters
    ----------
    read_slice : callable
        z -> ndarray of int16, shape (y, x); called from several threads.
    model : Model
    order : SliceOrder
    intensity : {"HU", "grey"}
    spacing : tuple of float, optional
        (y, x) in mm; None where it is unknown.
    batch : int, optional
        Slices per pass; by default what suits the device.
    thresholds : dict of str to float, optional
        Per output; the card's by default.
    probabilities : bool
        Also return the probabilities.
    notice : callable
        Told in a sentence when the batch was halved.

    Yields
    ------
    list of SlicePrediction

    Raises
    ------
    JobError
        If a single slice does not fit into the device's memory.
    """
    limit = batch or default_batch(model.device)
    levels = {**model.card.thresholds, **(thresholds or {})}
    # without lungs there is nothing that findings could have to lie inside
    labels = model.card.lesions if "lungs" in model.card.outputs else ()

    def prepare(z: int) -> _Prepared:
        voxels = read_slice(z)
        return _Prepared(z, voxels, model.preparation(voxels, intensity))

    def clean(
        now: _Prepared, lungs: Mask, lesions: Mask, kept: Mask | None, entropy: float
    ) -> SlicePrediction:
        if intensity == "HU":
            lungs = drop_gas_and_fat(lungs, now.voxels)
        lungs, lesions = clean_slice(lungs, lesions, labels, spacing)
        if intensity == "HU" and spacing is not None:
            lesions = keep_raised(lesions, lungs, now.voxels, spacing, labels)
        return SlicePrediction(now.z, lungs, lesions, kept, entropy)

    with ThreadPoolExecutor(_WORKERS, thread_name_prefix="covseg-slices") as pool:
        coming = [pool.submit(prepare, z) for z in order.take(1)]
        while coming:
            batch_now = [slice_.result() for slice_ in coming]
            # On a CPU the network has every core, and waits for its slowest: what is prepared
            # beside it costs twice as much as what is prepared beside the cleaning.
            coming = []
            if model.device.type != "cpu":
                coming = [pool.submit(prepare, z) for z in order.take(limit)]
            while batch_now:
                now = batch_now[:limit]
                try:
                    masks = _infer(
                        model, [slice_.image for slice_ in now], now[0].voxels.shape, levels, probabilities
                    )
                except (MemoryError, RuntimeError) as error:
                    if not _out_of_memory(error):
                        raise
                    limit = _halve(limit, model.device, notice)
                    continue
                batch_now = batch_now[limit:]
                cleaned = [pool.submit(clean, *row) for row in zip(now, *masks, strict=True)]
                coming = coming or [pool.submit(prepare, z) for z in order.take(limit)]
                yield [slice_.result() for slice_ in cleaned]


@torch.inference_mode()
def _infer(
    model: Model, images: list[Mask], shape: tuple[int, int], levels: dict[str, float], keep: bool
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], list[npt.NDArray[np.uint8] | None], list[float]]:
    """Run the network and threshold on the device; only uint8 masks, and entropies, leave it."""
    inputs = torch.from_numpy(np.stack(images)).to(model.device).unsqueeze(1).float().div_(255.0)
    logits = model.network(inputs.contiguous(memory_format=torch.channels_last))
    probability = torch.cat([logits[name] for name in model.card.outputs], 1).sigmoid()
    entropies = _entropies(model, probability, shape)
    probability = restore(probability, shape)
    lungs = torch.zeros((len(images), *shape), dtype=torch.uint8, device=model.device)
    lesions = torch.zeros_like(lungs)
    best: Tensor | None = None
    values = {label.name: label.value for label in model.card.lesions}
    for channel, name in enumerate(model.card.outputs):
        here = probability[:, channel]
        wins = here >= levels[name]
        if name == "lungs":
            lungs = wins.byte().mul_(3)
        elif best is None:
            lesions, best = wins.byte().mul_(values[name]), here
        else:  # where several lesions are likely, the likeliest names the voxel
            wins &= (here > best) | (lesions == 0)
            lesions.masked_fill_(wins, values[name])
            best = torch.where(wins, here, best)
    kept = probability.mul(255).round().byte().cpu().numpy() if keep else [None] * len(images)
    return lungs.cpu().numpy(), lesions.cpu().numpy(), list(kept), entropies


def _entropies(model: Model, probability: Tensor, shape: tuple[int, int]) -> list[float]:
    """Entropy of each slice, counted on the network's grid and given for the scan's."""
    channels = [channel for channel, name in enumerate(model.card.outputs) if name != "lungs"]
    if not channels:
        return [math.nan] * len(probability)
    findings = probability[:, channels].amax(1).mul(255).round_().byte().cpu().numpy()
    pixels = (max(shape) / probability.shape[-1]) ** 2
    return [pixels * slice_entropy(finding) for finding in findings]


def restore(probability: Tensor, shape: tuple[int, int]) -> Tensor:
    """Resize probabilities to the scan's grid and cut off what squared the slice.

    Probabilities are resized, never labels: thresholding comes after, so that outlines
    stay smooth at the scan's resolution.

    Parameters
    ----------
    probability : Tensor, shape (n, c, size, size)
    shape : tuple of int
        (y, x) of the scan's slices.

    Returns
    -------
    Tensor, shape (n, c, y, x)
    """
    side = max(shape)
    if probability.shape[-1] != side:
        # channels last, in which it leaves the network, takes four times as long on a CPU
        probability = probability.contiguous()
        probability = F.interpolate(probability, (side, side), mode="bilinear", align_corners=False)
    return probability[..., : shape[0], : shape[1]]


def _out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    told = "out of memory" in text or "can't allocate" in text
    return told or isinstance(error, MemoryError | torch.OutOfMemoryError)


def _halve(limit: int, device: torch.device, notice: Callable[[str], None]) -> int:
    if limit == 1:
        raise JobError(
            f"One slice does not fit into the memory of {device}: choose the CPU or close programs."
        )
    if device.type == "cuda":
        torch.cuda.empty_cache()
    notice(f"The memory of {device} is full: going on with {limit // 2} slices at a time.")
    return limit // 2
