"""A labelled scan as a whole: the last pass in 3-D; and a scan in memory labelled in one call."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.labels import LESIONS, Label
from napari_covseg.masks.parts import numbered
from napari_covseg.masks.sides import COARSE, lung_sides, paint_sides
from napari_covseg.models.file import Model
from napari_covseg.predict.clean import UNKNOWN_PIXEL_MM, keep_inside
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.slices import SliceOrder, predict_slices
from napari_covseg.scans.appearance import Appearance
from napari_covseg.scans.scan import Intensity, Scan
from napari_covseg.scans.stated import look_at

Mask = npt.NDArray[np.uint8]
T = TypeVar("T")
_READERS = 2


def predict_volume(
    scan: Scan,
    model: Model | Ensemble,
    *,
    batch: int | None = None,
    appearance: Appearance | None = None,
    thresholds: dict[str, float] | None = None,
    min_pixels: int = 0,
    min_ml: float = 0.0,
    uncertainty: Mask | None = None,
    probabilities: Mask | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    notice: Callable[[str], None] = lambda text: None,
) -> tuple[Mask, Mask]:
    """Label every slice, then clean the whole in 3-D.

    Parameters
    ----------
    scan : Scan
    model : Model or Ensemble
    appearance : Appearance, optional
        What the scan looks like; by default it is looked at.
    batch, thresholds, min_pixels
        See `predict_slices`.
    min_ml : float
        Findings of less are dropped in 3-D; only where the spacing is known.
    uncertainty : ndarray of uint8, shape (z, y, x), optional
        Where to write how unsure the ensemble is, if it measures that.
    probabilities : ndarray of uint8, shape (z, output, y, x), optional
        Where to write the probabilities.
    progress : callable
        Called with (slices done, all slices).
    notice : callable
        Called with a sentence that a person should know.

    Returns
    -------
    lungs : ndarray of uint8, shape (z, y, x)
        1 right, 2 left, 3 side undetermined.
    lesions : ndarray of uint8, shape (z, y, x)
        Values of `labels.LESIONS`.

    Raises
    ------
    JobError
        If a single slice does not fit into the device's memory.
    """
    count = len(scan.voxels)
    lungs, lesions = np.zeros(scan.voxels.shape, np.uint8), np.zeros(scan.voxels.shape, np.uint8)
    order, done = SliceOrder(count), 0
    batches = predict_slices(
        scan.voxels.__getitem__,
        model,
        order,
        appearance=appearance or look_at(scan),
        spacing=scan.spacing[1:] if scan.spacing else None,
        batch=batch,
        thresholds=thresholds,
        probabilities=probabilities is not None,
        min_pixels=min_pixels,
        notice=notice,
    )
    progress(0, count)
    with closing(batches):
        for predictions in batches:
            for predicted in predictions:
                lungs[predicted.z], lesions[predicted.z] = predicted.lungs, predicted.lesions
                if uncertainty is not None and predicted.uncertainty is not None:
                    uncertainty[predicted.z] = predicted.uncertainty
                if probabilities is not None and predicted.probabilities is not None:
                    probabilities[predicted.z] = predicted.probabilities
            done += len(predictions)
            progress(done, count)

    def read(z: int) -> tuple[Mask, Mask]:
        return lungs[z], lesions[z]

    labels = model.card.lesions
    passes = [finish_volume(read, count, spacing=scan.spacing, intensity=scan.intensity, labels=labels)]
    if min_ml > 0 and scan.spacing is not None:
        passes.append(drop_small_findings(read, count, spacing=scan.spacing, min_ml=min_ml))
    for changed in chain.from_iterable(passes):
        if changed is not None:
            z, lungs[z], lesions[z] = changed
    return lungs, lesions


def finish_volume(
    read: Callable[[int], tuple[Mask, Mask]],
    count: int,
    *,
    spacing: tuple[float, float, float] | None,
    intensity: Intensity = "HU",
    labels: Sequence[Label] = LESIONS,
    coarse: Sequence[npt.NDArray[np.bool_]] | None = None,
) -> Iterator[tuple[int, Mask, Mask] | None]:
    """Last pass over a labelled volume: keep the lungs, drop strays, tell right from left.

    Connected components are found on a coarse grid (at most 128 columns, and 128 slabs of
    slices), which is enough to tell lungs from bowel gas or an arm and takes little memory.
    Pictures have no reliable orientation: their lungs stay "side undetermined", and as
    their slices need not be neighbours, nothing is dropped.

    Parameters
    ----------
    read : callable
        z -> (lungs, lesions), each uint8, shape (y, x).
    count : int
        Number of slices.
    spacing : tuple of float, or None
        (z, y, x) in mm.
    intensity : {"HU", "grey"}
    labels : sequence of Label
    coarse : sequence of ndarray, optional
        `coarse_lungs` of each slice, if they are known: spares reading all twice.

    Yields
    ------
    None
        Often, while reading, so that other work can run in between.
    tuple of (int, ndarray, ndarray)
        z, lungs and lesions of a slice that changed.
    """
    if intensity == "grey" or count == 0:
        return
    if coarse is None:
        coarse = []
        for here in ahead(lambda z: coarse_lungs(read(z)[0]), count):
            coarse.append(here)
            yield None
    if not any(slice_.any() for slice_ in coarse):  # a model without lungs: its findings lie where they lie
        return
    step = _step((count,))
    slabs = np.stack([np.logical_or.reduce(coarse[z : z + step]) for z in range(0, count, step)])
    sides = lung_sides(slabs)
    yield None
    pixel = spacing[1:] if spacing else (UNKNOWN_PIXEL_MM, UNKNOWN_PIXEL_MM)

    def finish(z: int) -> tuple[int, Mask, Mask] | None:
        lungs, lesions = read(z)
        new_lungs, new_lesions = with_sides(
            lungs, lesions, _fine(sides[z // step], lungs.shape), labels, pixel
        )
        changed = new_lesions is not lesions or not np.array_equal(lungs, new_lungs)
        return (z, new_lungs, new_lesions) if changed else None

    yield from ahead(finish, count)


def with_sides(
    lungs: Mask, lesions: Mask, sides: Mask, labels: Sequence[Label], pixel: tuple[float, float]
) -> tuple[Mask, Mask]:
    """Give a slice's lungs the sides that are known there; strays go, with the findings in them.

    Parameters
    ----------
    lungs, lesions : ndarray of uint8, shape (y, x)
    sides : ndarray of uint8, shape (y, x)
        See `masks.sides.paint_sides`.
    labels : sequence of Label
        Those that lie inside the lungs go with a stray.
    pixel : tuple of float
        (y, x) in mm.
    """
    new_lungs = paint_sides(lungs, sides)
    if cv2.countNonZero(new_lungs) < cv2.countNonZero(lungs):
        return new_lungs, keep_inside(new_lungs, lesions, labels, pixel)
    return new_lungs, lesions


def _fine(sides: Mask, shape: tuple[int, ...]) -> Mask:
    step = _step(shape)
    return np.repeat(np.repeat(sides, step, 0), step, 1)[: shape[0], : shape[1]]


def coarse_lungs(lungs: Mask) -> npt.NDArray[np.bool_]:
    """Return where the lungs of a slice are on the coarse grid of the last pass."""
    step = _step(lungs.shape)
    return np.asarray(lungs[::step, ::step] > 0)


def _step(shape: tuple[int, ...]) -> int:
    return -(-max(shape) // COARSE)


def ahead(work: Callable[[int], T], count: int) -> Iterator[T]:
    """Yield what `work` makes of 0, 1, 2 ...; the next ones are made meanwhile, in threads."""
    with ThreadPoolExecutor(_READERS, thread_name_prefix="covseg-read") as pool:
        coming = deque(pool.submit(work, z) for z in range(min(2 * _READERS, count)))
        for z in range(2 * _READERS, count):
            done = coming.popleft().result()
            coming.append(pool.submit(work, z))
            yield done
        while coming:
            yield coming.popleft().result()


def drop_small_findings(
    read: Callable[[int], tuple[Mask, Mask]],
    count: int,
    *,
    spacing: tuple[float, float, float],
    min_ml: float,
) -> Iterator[tuple[int, Mask, Mask] | None]:
    """Drop findings, whatever their labels, of less than a volume; only two slices are in memory.

    Parameters
    ----------
    read : callable
        z -> (lungs, lesions), each uint8, shape (y, x).
    count : int
        Number of slices.
    spacing : tuple of float
        (z, y, x) in mm.
    min_ml : float

    Yields
    ------
    None
        Often, so that other work can run in between.
    tuple of (int, ndarray, ndarray)
        z, lungs and lesions of a slice that changed.
    """
    groups = _Groups()
    firsts: list[int] = []  # of each slice, the number of its first part
    before: npt.NDArray[np.int32] | None = None
    for _, lesions in ahead(read, count):
        firsts.append(len(groups))
        before = groups.add(numbered(lesions, touching="corners")[0], before)
        yield None
    small = groups.sizes() * (float(np.prod(spacing)) / 1000) < min_ml
    ends = [*firsts[1:], len(groups)]
    for z, (start, stop) in enumerate(zip(firsts, ends, strict=True)):
        if not small[start:stop].any():
            yield None
            continue
        lungs, lesions = read(z)
        gone = np.concatenate([[False], small[start:stop]])[numbered(lesions, touching="corners")[0]]
        yield z, lungs, np.where(gone, 0, lesions).astype(np.uint8)


class _Groups:
    """Parts of slices, joined to findings where they lie on each other."""

    def __init__(self) -> None:
        self._leader: list[int] = []
        self._pixels: list[int] = []

    def __len__(self) -> int:
        return len(self._leader)

    def add(
        self, parts: npt.NDArray[np.int32], before: npt.NDArray[np.int32] | None
    ) -> npt.NDArray[np.int32]:
        """Take in the parts of the next slice; returns them with their numbers, -1 elsewhere."""
        first = len(self)
        pixels = np.bincount(parts.ravel())[1:]
        self._pixels += pixels.tolist()
        self._leader += range(first, first + len(pixels))
        numbered = np.where(parts > 0, parts + np.int32(first - 1), np.int32(-1))
        if before is not None:
            both = (numbered >= 0) & (before >= 0)
            for part, below in np.unique(np.stack([numbered[both], before[both]]), axis=1).T.tolist():
                self._leader[self._of(part)] = self._of(below)
        return numbered

    def sizes(self) -> npt.NDArray[np.intp]:
        """Return for each part how many voxels its finding has."""
        leaders = np.array([self._of(part) for part in range(len(self))], np.intp)
        total = np.bincount(leaders, self._pixels, minlength=len(self)) if len(self) else np.zeros(0)
        return np.asarray(total[leaders], np.intp)

    def _of(self, part: int) -> int:
        while self._leader[part] != part:
            self._leader[part] = self._leader[self._leader[part]]
            part = self._leader[part]
        return part
