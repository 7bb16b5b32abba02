"""*Refine this slice*: a scribble on the worst mistakes, alone and as a hint to the model."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from napari_covseg.assess.patients import Assessed, evenly
from napari_covseg.assess.summary import interval
from napari_covseg.learn.refine import refine
from napari_covseg.learn.score import probabilities
from napari_covseg.metrics import dice
from napari_covseg.models.file import Model, load_model

Mask = npt.NDArray[np.bool_]

_SMALLEST_PART = 12
"""Pixels of a mistake that is worth a scribble."""
_BRUSH = 3


@dataclass(frozen=True)
class Refined:
    """One slice with a person's scribbles.

    Attributes
    ----------
    patient : str
    z : int
    before, scribbled, refined : float
        Lesion Dice of the slice: as predicted, with the scribbles painted, and refined.
    seconds : float
        Of the refinement.
    """

    patient: str
    z: int
    before: float
    scribbled: float
    refined: float
    seconds: float


def scribbles(predicted: Mask, truth: Mask) -> tuple[Mask, Mask]:
    """Draw a line through the largest missed part, and one through the largest false part.

    A line goes through the middle of the part, along its long axis, as wide as a small brush.

    Parameters
    ----------
    predicted, truth : ndarray of bool, shape (y, x)

    Returns
    -------
    positive, negative : ndarray of bool, shape (y, x)
        Empty where no part is large enough.
    """
    return _line(truth & ~predicted), _line(predicted & ~truth)


def _line(mistakes: Mask) -> Mask:
    drawn = np.zeros(mistakes.shape, np.uint8)
    parts, number = ndimage.label(mistakes)
    sizes = np.bincount(parts.ravel(), minlength=number + 1)
    sizes[0] = 0
    if sizes.max() < _SMALLEST_PART:
        return drawn > 0
    part = parts == sizes.argmax()
    depth = cv2.distanceTransform(part.astype(np.uint8), cv2.DIST_L2, 5)
    middle = np.array(np.unravel_index(int(depth.argmax()), part.shape), np.float64)
    where = np.argwhere(part) - middle
    axis = np.linalg.eigh(where.T @ where)[1][:, -1]
    # to either side as far as it stays inside
    ends = []
    for way in (axis, -axis):
        reach = 0.0
        while _inside(part, middle + (reach + 1) * way):
            reach += 1
        ends.append(tuple(round(value) for value in (middle + reach * way)[::-1]))
    cv2.line(drawn, ends[0], ends[1], 1)
    drawn = np.asarray(cv2.dilate(drawn, np.ones((_BRUSH, _BRUSH), np.uint8)), np.uint8)
    return np.asarray((drawn > 0) & part)


def _inside(part: Mask, where: npt.NDArray[np.float64]) -> bool:
    y, x = (round(value) for value in where)
    return 0 <= y < part.shape[0] and 0 <= x < part.shape[1] and bool(part[y, x])


def refine_patient(assessed: Assessed, model: Model, slices: int) -> Iterator[Refined]:
    """Refine evenly spaced slices of a patient; slices without a mistake worth a scribble are passed over.

    Yields
    ------
    Refined
    """
    patient = assessed.patient
    channel = model.card.outputs.index("lesion")
    level = model.card.thresholds["lesion"]
    for z in evenly(len(patient.images), slices).tolist():
        image, truth = patient.images[z], patient.lesions[z] > 0
        said = probabilities(model, image[None])[0, channel].astype(np.float32) / 255
        predicted = np.asarray(said >= level)
        positive, negative = scribbles(predicted, truth)
        if not (positive.any() or negative.any()):
            continue
        started = time.perf_counter()
        better = refine(model, image, said, positive, negative) >= level
        seconds = time.perf_counter() - started
        painted = (predicted | positive) & ~negative
        yield Refined(
            patient.name, z, dice(predicted, truth), dice(painted, truth), dice(better, truth), seconds
        )


def refine_all(patients: Sequence[Assessed], slices: int) -> Iterator[Refined]:
    """Do so for every patient; the model files are loaded once each."""
    loaded: dict[Path, Model] = {}
    for assessed in patients:
        if assessed.model not in loaded:
            loaded = {assessed.model: load_model(assessed.model, "cpu")}
        yield from refine_patient(assessed, loaded[assessed.model], slices)


def refine_table(rows: Sequence[Refined]) -> str:
    """Return mean Dice, the gain with its interval, and time, as Markdown."""
    gains: dict[str, list[float]] = {}
    for row in rows:
        gains.setdefault(row.patient, []).append(row.refined - row.scribbled)
    mean, low, high = interval(np.array([np.mean(some) for some in gains.values()]))
    better = np.mean([row.refined > row.scribbled for row in rows])
    shown = [
        ("slices, patients", f"{len(rows)}, {len(gains)}"),
        ("Dice as predicted", f"{np.mean([row.before for row in rows]):.3f}"),
        ("Dice with the scribbles painted", f"{np.mean([row.scribbled for row in rows]):.3f}"),
        ("Dice refined", f"{np.mean([row.refined for row in rows]):.3f}"),
        ("gain over the scribbles alone, by patient", f"{mean:+.3f} ({low:+.3f} to {high:+.3f})"),
        ("slices that became better", f"{100 * better:.0f} %"),
        ("milliseconds, median", f"{1000 * np.median([row.seconds for row in rows]):.0f}"),
    ]
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in shown)]) + "\n"
