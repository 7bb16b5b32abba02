"""How well pictures are told apart: confusion matrix and rates, AUC, calibration, intervals by patient."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

Truth = npt.NDArray[np.integer[Any]]
Values = npt.NDArray[np.floating[Any]]

_DRAWS = 1000


def confusion(truth: Truth, found: Truth, classes: int) -> npt.NDArray[np.int64]:
    """Count pictures by what they are and what they are taken for.

    Parameters
    ----------
    truth, found : ndarray of int, shape (n,)
        Numbers of classes.
    classes : int

    Returns
    -------
    ndarray of int64, shape (classes, classes)
        A row for each true class, a column for each that was found.
    """
    counts = np.bincount(truth * classes + found, minlength=classes * classes)
    return counts.reshape(classes, classes).astype(np.int64)


def rates(matrix: npt.NDArray[np.int64], positive: int = 0) -> dict[str, float]:
    """Return the figures that follow from a confusion matrix, NaN where one would divide by 0.

    Parameters
    ----------
    matrix : ndarray of int64, shape (classes, classes)
        From `confusion`.
    positive : int
        The class that is looked for; all others together are its absence. ``accuracy`` and ``mcc`` are of all
        classes (Gorodkin's generalisation, which for two is Matthews' own).

    Returns
    -------
    dict of str to float
        ``accuracy``, ``sensitivity``, ``specificity``, ``precision``, ``f1``, ``fpr``, ``mcc``.
    """
    total, right = int(matrix.sum()), int(np.trace(matrix))
    true, found = matrix.sum(1), matrix.sum(0)
    tp = int(matrix[positive, positive])
    fn, fp = int(true[positive]) - tp, int(found[positive]) - tp
    tn = total - tp - fn - fp
    apart = (total**2 - int((found**2).sum())) * (total**2 - int((true**2).sum()))
    return {
        "accuracy": _share(right, total),
        "sensitivity": _share(tp, tp + fn),
        "specificity": _share(tn, tn + fp),
        "precision": _share(tp, tp + fp),
        "f1": _share(2 * tp, 2 * tp + fp + fn),
        "fpr": _share(fp, tn + fp),
        "mcc": _share(right * total - int(true @ found), math.sqrt(apart)),
    }


def auc(truth: npt.NDArray[np.bool_], score: Values) -> float:
    """Return the area under the ROC curve: how often a positive scores above a negative, ties half.

    Parameters
    ----------
    truth : ndarray of bool, shape (n,)
    score : ndarray of float, shape (n,)

    Returns
    -------
    float
        NaN if all are positive, or none is.
    """
    positives, negatives = int(truth.sum()), int((~truth).sum())
    ranks = float(rankdata(score)[truth].sum())
    return _share(ranks - positives * (positives + 1) / 2, positives * negatives)


def brier(truth: Truth, probabilities: Values) -> float:
    """Return the mean squared error of the probabilities: 0 is certain and right.

    Parameters
    ----------
    truth : ndarray of int, shape (n,)
    probabilities : ndarray of float, shape (n, classes)
        Of two classes the error counts once, as Brier's score of an event does; of more it is added up.
    """
    apart = (probabilities - np.eye(probabilities.shape[1])[truth]) ** 2
    return float(apart.sum(1).mean()) / (2 if probabilities.shape[1] == 2 else 1)


def reliability(
    right: npt.NDArray[np.bool_], probability: Values, bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return the points of a reliability curve: how sure, how often right, how many pictures.

    Parameters
    ----------
    right : ndarray of bool, shape (n,)
        Whether what was said with this probability is so.
    probability : ndarray of float, shape (n,)
    bins : int
        Equal parts of [0, 1]; those without pictures have no point.
    """
    part = np.minimum((probability * bins).astype(int), bins - 1)
    some = [part == number for number in range(bins)]
    return [(float(probability[m].mean()), float(right[m].mean()), int(m.sum())) for m in some if m.any()]


def intervals_by_patient(
    patients: npt.NDArray[np.str_],
    measure: Callable[[npt.NDArray[np.intp]], Sequence[float]],
    draws: int = _DRAWS,
) -> list[tuple[float, float]]:
    """Return 95 % bootstrap intervals of figures, drawing patients, never single pictures.

    Parameters
    ----------
    patients : ndarray of str, shape (n,)
        Of each picture.
    measure : callable
        Returns the figures of pictures with these numbers, of which some are there several times; NaN where
        one has no value, which is left out.
    draws : int

    Returns
    -------
    list of tuple of float
        Ends for each figure; NaN if it had no value in any draw.
    """
    names = np.unique(patients)
    mine = [np.flatnonzero(patients == name) for name in names]
    drawn = np.random.default_rng(0).integers(len(names), size=(draws, len(names)))
    columns = np.array([measure(np.concatenate([mine[one] for one in row])) for row in drawn]).T
    ends = []
    for values in columns:
        some = values[np.isfinite(values)]
        low, high = np.percentile(some, [2.5, 97.5]) if len(some) else (math.nan, math.nan)
        ends.append((float(low), float(high)))
    return ends


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan
