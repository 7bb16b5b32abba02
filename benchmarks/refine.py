"""Measure *Refine this slice*: a scribble on the worst mistakes, alone and as a hint to the model.

    python benchmarks/refine.py DATA MODELS [--patients NAME,NAME] [--slices 12] [--json]

DATA is a folder with a folder per patient, or a .toml file, as for `covseg train`; MODELS a folder of models,
each of which has never seen its test patients.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.assess.comparison import interval
from napari_covseg.assess.patients import Assessed, evenly, read_assessed
from napari_covseg.errors import CovsegError
from napari_covseg.learn.score import model_probabilities
from napari_covseg.masks.parts import numbered
from napari_covseg.metrics import dice
from napari_covseg.models.file import Model, load_model
from napari_covseg.predict.refine import refine

Mask = npt.NDArray[np.bool_]

_SMALLEST_PART = 12
"""Pixels of a mistake that is worth a scribble."""
_BRUSH = 3


@dataclasses.dataclass(frozen=True)
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
    parts, sizes = numbered(mistakes)
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
        said = model_probabilities(model, image[None])[0, channel].astype(np.float32) / 255
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


def main() -> None:
    """Refine slices of every patient, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("models", type=Path)
    parser.add_argument(
        "--patients", default="", help="with commas; by default all that a model was tested on"
    )
    parser.add_argument("--slices", type=int, default=12, help="evenly spaced slices of each patient")
    parser.add_argument("--json", action="store_true", help="a line for each slice instead of the table")
    given = parser.parse_args()
    names = [name.strip() for name in given.patients.split(",") if name.strip()]
    rows = []
    try:
        for row in refine_all(read_assessed(given.data, given.models, names), given.slices):
            rows.append(row)
            if given.json:
                print(json.dumps(dataclasses.asdict(row)), flush=True)
    except CovsegError as error:
        raise SystemExit(str(error)) from error
    if not rows:
        raise SystemExit("No slice has a mistake worth a scribble: give more patients or slices.")
    if not given.json:
        print(refine_table(rows), end="")


if __name__ == "__main__":
    main()
