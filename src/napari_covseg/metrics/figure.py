"""One figure for many slices or patients, with what was done where masks are empty."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.metrics import overlap, surface
from napari_covseg.metrics.overlap import Mask

Over = Literal["slice", "infected slice", "patient", "pooled"]
Empty = Literal["left out", "agree"]
OVERLAPS: dict[str, Callable[..., float]] = {
    "dice": overlap.dice,
    "jaccard": overlap.jaccard,
    "sensitivity": overlap.sensitivity,
    "specificity": overlap.specificity,
    "precision": overlap.precision,
    "accuracy": overlap.accuracy,
    "f1": overlap.f1,
    "mcc": overlap.mcc,
    "mae": overlap.mae,
}
SURFACES = ("assd", "hd95", "surface_dice")
METRICS = (*OVERLAPS, *SURFACES)


@dataclass(frozen=True)
class Figure:
    """A metric's mean over cases.

    Attributes
    ----------
    value, sd : float
        Mean, and standard deviation of the sample (n - 1); NaN without a case, or with one.
    n : int
        Cases that the mean is taken over.
    empty : int
        Cases in which an empty mask left the metric without a value, so that the policy
        decided; for distances that were measured slice by slice and then pooled, the slices.
    """

    value: float
    sd: float
    n: int
    empty: int


def figure(
    metric: str,
    predicted: Mask,
    truth: Mask,
    patients: Sequence[str] | npt.NDArray[np.str_] | None = None,
    *,
    over: Over = "slice",
    empty: Empty = "left out",
    spacing: Sequence[float] = (1.0, 1.0),
    tolerance: float = 2.0,
) -> Figure:
    """Measure slices, and average as asked.

    Parameters
    ----------
    metric : str
        Of `METRICS`.
    predicted, truth : ndarray of bool, shape (n, y, x)
    patients : sequence of str, shape (n,), optional
        Whom each slice belongs to, in the order of the scan; one patient by default.
    over : {"slice", "infected slice", "patient", "pooled"}
        What a case is: each slice; each slice whose truth is not empty; all slices of a
        patient at once; all slices of all patients at once.
    empty : {"left out", "agree"}
        What becomes of a case without a value because a mask is empty. "left out" of the mean.
        "agree", as Yazdekhasty 2020 counts: two empty masks have the best value (1, a distance
        of 0), one empty mask has 0 (its distances are left out). Averaged over all slices, the
        second is the higher by the share of slices on which nothing is to be found.
    spacing : sequence of float
        In mm; (y, x) measures distances slice by slice, (z, y, x) those of a patient in 3-D.
    tolerance : float
        Of ``surface_dice``, in mm.

    Raises
    ------
    ValueError
        If the metric is not known, or shapes do not fit.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric {metric!r}: choose from {', '.join(METRICS)}")
    values: list[float] = []
    touched = 0
    for a, b, names in _cases(predicted, truth, patients, over):
        if metric in OVERLAPS:
            value, without = OVERLAPS[metric](a, b, empty=math.nan), 0
        else:
            value, without = _apart(metric, a, b, names, spacing, tolerance)
        if math.isnan(value):
            value, without = _decided(metric, a, b, empty), 1
        touched += without
        if not math.isnan(value):
            values.append(value)
    return Figure(
        float(np.mean(values)) if values else math.nan,
        float(np.std(values, ddof=1)) if len(values) > 1 else math.nan,
        len(values),
        touched,
    )


def _cases(
    predicted: Mask, truth: Mask, patients: Sequence[str] | npt.NDArray[np.str_] | None, over: Over
) -> Iterator[tuple[Mask, Mask, npt.NDArray[np.str_]]]:
    """Yield the masks and patients' names of every case."""
    if predicted.shape != truth.shape or predicted.ndim != 3:
        raise ValueError(f"slices of shapes {predicted.shape} and {truth.shape}")
    names = np.array([""] * len(truth) if patients is None else patients, np.str_)
    if len(names) != len(truth):
        raise ValueError(f"{len(truth)} slices with {len(names)} names of patients")
    if over == "pooled":
        rows = [np.arange(len(truth))]
    elif over == "patient":
        rows = [np.flatnonzero(names == name) for name in dict.fromkeys(names.tolist())]
    else:
        wanted = range(len(truth)) if over == "slice" else np.flatnonzero(truth.any((1, 2)))
        rows = [np.array([row]) for row in wanted]
    for some in rows:
        yield predicted[some], truth[some], names[some]


def _apart(
    metric: str,
    predicted: Mask,
    truth: Mask,
    names: npt.NDArray[np.str_],
    spacing: Sequence[float],
    tolerance: float,
) -> tuple[float, int]:
    """Return a figure of distances, and the slices that it could not take in."""
    if len(truth) == 1:
        spacing = spacing[-2:]  # a single slice has no depth
    parts = [names == name for name in dict.fromkeys(names.tolist())]
    measured = surface.joined([surface.surfaces(predicted[one], truth[one], spacing) for one in parts])
    if metric == "surface_dice":
        return surface.within(measured, tolerance, math.nan), 0
    formula = surface.average if metric == "assd" else surface.farthest
    return formula(measured), measured.alone


def _decided(metric: str, predicted: Mask, truth: Mask, empty: Empty) -> float:
    """Return the value of a case that has none by its formula; NaN leaves it out."""
    if empty == "left out":
        return math.nan
    both = not predicted.any() and not truth.any()
    if metric in ("assd", "hd95"):
        return 0.0 if both else math.nan
    return float(both)
