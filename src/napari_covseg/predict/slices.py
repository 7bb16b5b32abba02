"""Scan in, labelled slices out, one batch at a time."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_covseg.errors import JobError
from napari_covseg.models.file import Model
from napari_covseg.models.placement import Placement
from napari_covseg.predict.clean import clean_slice, drop_small
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.findings import keep_raised
from napari_covseg.predict.forward import Looked, Said, ask, lungs_of, view
from napari_covseg.predict.order import SliceOrder
from napari_covseg.predict.tissue import drop_gas_and_fat
from napari_covseg.scans.scan import Intensity

_log = logging.getLogger(__name__)

Voxels = npt.NDArray[np.int16]
Mask = npt.NDArray[np.uint8]
ReadSlice = Callable[[int], Voxels]

WORKERS = max(2, min(8, os.cpu_count() or 2))


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
    uncertainty : ndarray of uint8, shape (y, x), or None
        How unsure the models are of any lesion: see `forward.ask`.
    """

    z: int
    lungs: npt.NDArray[np.uint8]
    lesions: npt.NDArray[np.uint8]
    probabilities: npt.NDArray[np.uint8] | None
    entropy: float = math.nan
    uncertainty: npt.NDArray[np.uint8] | None = None


def default_batch(device: torch.device) -> int:
    """Slices per pass: as many as the cores can clean at once, few on a CPU.

    There, more gain nothing, take memory for all layers, and delay a cancel.
    """
    return 32 if device.type == "cuda" else min(4, WORKERS)


@torch.inference_mode()
def rehearse(model: Model) -> None:
    """Run the network on one batch of empty slices, so that the first real one need not wait.

    The first pass of a network chooses its kernels and takes the memory that later ones use again.
    """
    size = model.preparation.size
    empty = [np.zeros((size, size), np.uint8)] * default_batch(model.device)
    try:
        inputs = torch.from_numpy(np.stack(empty)).to(model.device).unsqueeze(1).float()
        model.network(inputs.contiguous(memory_format=torch.channels_last))
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):  # with real slices the batch is halved
            raise


def predict_slices(
    read_slice: ReadSlice,
    model: Model | Ensemble,
    order: SliceOrder,
    *,
    intensity: Intensity = "HU",
    spacing: tuple[float, float] | None = None,
    batch: int | None = None,
    thresholds: dict[str, float] | None = None,
    probabilities: bool = False,
    min_pixels: int = 0,
    notice: Callable[[str], None] = _log.warning,
) -> Iterator[list[SlicePrediction]]:
    """Label the slices that `order` hands out, nearest to its focus first.

    The first batch is a single slice, so that it appears at once. Slices are read, prepared
    and cleaned in threads: on a GPU while the network works, on a CPU between two batches.
    When the device runs out of memory the batch is halved and nothing is lost. Models that crop
    their slices do not see those in which the ensemble's `lungs_from` finds no lung.

    Parameters
    ----------
    read_slice : callable
        z -> ndarray of int16, shape (y, x); called from several threads.
    model : Model or Ensemble
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
    min_pixels : int
        Findings of fewer pixels are dropped.
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
    ensemble = model if isinstance(model, Ensemble) else Ensemble((model,))
    finder, device = ensemble.lungs_from, ensemble.device
    limit = batch or default_batch(device)
    levels = {**ensemble.thresholds, **(thresholds or {})}
    # without lungs there is nothing that findings could have to lie inside
    labels = ensemble.card.lesions if ensemble.knows_lungs else ()

    inside = np.isin(np.arange(256), [label.value for label in labels if label.inside_lungs])

    def prepare(z: int) -> Looked:
        voxels = read_slice(z)
        first = ensemble.models if finder is None else (finder,)
        return Looked(z, voxels, tuple(view(one, voxels, intensity) for one in first))

    def look_again(now: Looked, found: Mask) -> Looked:
        lungs = drop_gas_and_fat(found, now.voxels) if intensity == "HU" else found
        lungs, _ = clean_slice(lungs, np.zeros_like(lungs), (), spacing)
        views = tuple(view(one, now.voxels, intensity, lungs) for one in ensemble.models)
        return Looked(now.z, now.voxels, views, lungs)

    def say(now: list[Looked]) -> Said:
        if finder is not None:
            now = list(pool.map(look_again, now, lungs_of(finder, now)))
        return ask(ensemble, now, levels, keep=probabilities)

    def clean(
        now: Looked, lungs: Mask, lesions: Mask, kept: Mask | None, unsure: Mask | None, entropy: float
    ) -> SlicePrediction:
        if intensity == "HU":
            kept_lungs = drop_gas_and_fat(lungs, now.voxels)
            lesions = _drop_where(lesions, (lungs > kept_lungs) & (lesions > 0), inside)
            lungs = kept_lungs
        lungs, lesions = clean_slice(lungs, lesions, labels, spacing)
        if intensity == "HU" and spacing is not None:
            lesions = keep_raised(lesions, lungs, now.voxels, spacing, labels)
        return SlicePrediction(now.z, lungs, drop_small(lesions, min_pixels), kept, entropy, unsure)

    with ThreadPoolExecutor(WORKERS, thread_name_prefix="covseg-slices") as pool:
        coming = [pool.submit(prepare, z) for z in order.take(1)]
        while coming:
            batch_now = [slice_.result() for slice_ in coming]
            # On a CPU the network has every core, and waits for its slowest: what is prepared
            # beside it costs twice as much as what is prepared beside the cleaning.
            coming = []
            if device.type != "cpu":
                coming = [pool.submit(prepare, z) for z in order.take(limit)]
            while batch_now:
                now = batch_now[:limit]
                try:
                    said = say(now)
                except (MemoryError, RuntimeError) as error:
                    if not _out_of_memory(error):
                        raise
                    limit = _halve(limit, device, notice)
                    continue
                batch_now = batch_now[limit:]
                cleaned = [pool.submit(clean, *row) for row in zip(now, *said, strict=True)]
                coming = coming or [pool.submit(prepare, z) for z in order.take(limit)]
                yield [slice_.result() for slice_ in cleaned]


def _drop_where(lesions: Mask, lost: npt.NDArray[np.bool_], inside: npt.NDArray[np.bool_]) -> Mask:
    """Zero findings, (y, x), where lungs were dropped, if their label lies inside the lungs."""
    return np.where(lost & inside[lesions], 0, lesions).astype(np.uint8) if lost.any() else lesions


def restore(probability: Tensor, shape: tuple[int, int]) -> Tensor:
    """Bring probabilities of whole slices to the scan's grid; see `Placement.restore`.

    Parameters
    ----------
    probability : Tensor, shape (n, c, size, size)
    shape : tuple of int
        (y, x) of the scan's slices.

    Returns
    -------
    Tensor, shape (n, c, y, x)
    """
    return Placement.whole(shape).restore(probability)


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
