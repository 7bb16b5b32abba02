"""Curves, means and intervals of simulated patients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Record = dict[str, Any]
Values = npt.NDArray[np.float64]

_DRAWS = 10_000


def value_at(record: Record, corrected: int, key: str = "dice") -> float:
    """Return a point's value after so many slices were corrected and, if it was due, learned from.

    Where the goal was reached before, or the slices ran out, the last value stands.
    """
    return float([point for point in record["points"] if point["corrected"] <= corrected][-1][key])


def forgotten_at(record: Record, corrected: int, key: str = "forgotten") -> float:
    """Return what was forgotten after so many corrected slices; 0 before the first fine-tuning.

    Parameters
    ----------
    record : dict
    corrected : int
    key : {"forgotten", "unseen"}
        On patients that the first model learned from, or on others; NaN if there are none.
    """
    rounds = [one for one in record["rounds"] if one["corrected"] <= corrected]
    return float(rounds[-1].get(key, "nan")) if rounds else 0.0


def by_patient(records: Sequence[Record], strategy: str, condition: str) -> dict[str, list[Record]]:
    """Return the records of one strategy and condition, a list of seeds for each patient."""
    found: dict[str, list[Record]] = {}
    for record in records:
        protocol = record["protocol"]
        if (protocol["strategy"], protocol["condition"]) == (strategy, condition):
            found.setdefault(record["patient"], []).append(record)
    return dict(sorted(found.items()))


def curve(runs: dict[str, list[Record]], grid: Sequence[int], key: str = "dice") -> Values:
    """Return a value per patient, (patients, len(grid)), averaged over the seeds first."""
    rows = [[np.mean([value_at(one, k, key) for one in seeds]) for k in grid] for seeds in runs.values()]
    return np.array(rows, np.float64).reshape(-1, len(grid))


def interval(values: Values) -> tuple[float, float, float]:
    """Return the mean and its 95 % bootstrap interval over the patients.

    Parameters
    ----------
    values : ndarray of float, shape (patients,)
    """
    if not len(values):
        return float("nan"), float("nan"), float("nan")
    rows = np.random.default_rng(0).integers(len(values), size=(_DRAWS, len(values)))
    low, high = np.percentile(values[rows].mean(1), [2.5, 97.5])
    return float(values.mean()), float(low), float(high)


def paired(one: dict[str, list[Record]], other: dict[str, list[Record]], corrected: int) -> Values:
    """Return the Dice of `one` less that of `other`, for each patient that both have."""
    both = sorted(set(one) & set(other))
    first = curve({name: one[name] for name in both}, [corrected])
    second = curve({name: other[name] for name in both}, [corrected])
    return np.asarray((first - second)[:, 0], np.float64)
