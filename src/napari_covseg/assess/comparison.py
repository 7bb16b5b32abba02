"""Networks side by side, from the figures stored of each fold: means, intervals, differences."""

# no torch in here: tables are printed without it

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import JobError
from napari_covseg.files import write_text
from napari_covseg.labels import OUTPUTS
from napari_covseg.metrics.overlap import Counts, overlaps

Values = npt.NDArray[np.float64]
_DRAWS = 10_000
_DISTANCES = ("assd", "hd95", "surface_dice")
Record = dict[str, Any]
Protocol = Literal["patient", "slice", "source"]

FORMAT = 2
"""1 had the outputs lungs and lesion, known everywhere; it is still read."""
PROTOCOLS: tuple[Protocol, ...] = ("patient", "slice", "source")
PLAIN = ("lungs", "lesion")
"""The outputs of a run of format 1."""
LEAK = (
    "With the protocol `slice`, slices of one patient lie on both sides of the split: its figures tell how "
    "well a network knows patients that it has learned from, not how well it labels a new one."
)


def write_record(path: Path, record: Record) -> None:
    """Write a record, with a line for each patient; raises JobError if that cannot be."""
    head = {key: value for key, value in record.items() if key != "rows"}
    rows = ",\n  ".join(json.dumps(row, separators=(",", ":")) for row in record["rows"])
    text = (
        json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        + f',\n "rows": [\n  {rows}\n ]\n}}\n'
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error


def read_record(path: Path) -> Record:
    """Read a stored run.

    Raises
    ------
    JobError
        If it is damaged, or of a newer format.
    """
    try:
        record: Record = json.loads(path.read_text(encoding="utf-8"))
        number = record["format"]
        missing = {"recipe", "protocol", "fold", "folds", "asked", "rows"} - set(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"{path} cannot be read ({error}): delete it to make it again.") from error
    if number not in range(1, FORMAT + 1) or missing:
        raise JobError(f"{path} is no run that is known here (format {number}): update napari-covseg.")
    return record


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


@dataclass(frozen=True)
class Mean:
    """A figure over patients.

    Attributes
    ----------
    mean, sd : float
        sd of the sample (n - 1).
    low, high : float
        95 % bootstrap interval of the mean over the patients.
    n : int
        Patients with a value.
    empty : int
        Patients without one, because a mask is empty; they are left out. Nor are patients counted of
        whom nobody has said where the output is.
    """

    mean: float
    sd: float
    low: float
    high: float
    n: int
    empty: int


@dataclass(frozen=True)
class Difference:
    """One network less another one, patient by patient.

    Attributes
    ----------
    mean, low, high : float
        Of the differences, with the 95 % bootstrap interval over the patients.
    p : float
        Of Wilcoxon's signed-rank test, two-sided, not corrected for the number of comparisons;
        NaN with fewer than two patients.
    n : int
        Patients that both have.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


@dataclass(frozen=True, eq=False)
class Network:
    """The stored runs of one recipe under one protocol.

    Attributes
    ----------
    recipe : str
    protocol : {"patient", "slice", "source"}
    records : list of dict
        One for each fold that is done.
    """

    recipe: str
    protocol: Protocol
    records: list[Record]

    @property
    def complete(self) -> bool:
        """Whether all folds are done."""
        return {record["fold"] for record in self.records} == set(self.records[0]["folds"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """What was measured, in the order of `labels.OUTPUTS`."""
        there = {name for record in self.records for name in record.get("outputs", PLAIN)}
        return tuple(name for name in OUTPUTS if name in there)

    @property
    def seconds(self) -> float:
        """Mean time of training of a fold."""
        return float(np.mean([record["seconds"] for record in self.records]))

    @property
    def lungs_from(self) -> tuple[str, ...]:
        """The models that found the lungs which the slices are cropped to; none where they are whole."""
        return tuple(dict.fromkeys(one["lungs_from"] for one in self.records if one.get("lungs_from")))

    def of(self, key: str) -> str:
        """Return a setting of the runs in words: all that occur."""
        values = dict.fromkeys(record[key] for record in self.records)
        numbers = sorted(value for value in values if isinstance(value, int | float))
        if len(numbers) > 1:
            return f"{numbers[0]}–{numbers[-1]}"
        return ", ".join(str(value) for value in values)

    @cached_property
    def rows(self) -> dict[str, list[Record]]:
        """The rows of each patient: one, or with the protocol "slice" one for each fold."""
        rows: dict[str, list[Record]] = {}
        for record in self.records:
            for row in record["rows"]:
                rows.setdefault(row["patient"], []).append(row)
        return dict(sorted(rows.items()))

    def counts(self, rows: Sequence[Record], output: str) -> list[Counts | None]:
        """Return the confusion matrix of each slice; None where nothing of it is known."""
        size = int(self.records[0]["grid"]) ** 2
        slices = (counts for row in rows if row.get(output) for counts in row[output]["by_slice"])
        return [None if counts is None else _matrix(counts, size) for counts in slices]

    def slices(self) -> dict[str, int]:
        """Return the number of slices that each patient was measured on."""
        return {name: sum(row["slices"] for row in rows) for name, rows in self.rows.items()}

    def by_patient(self, output: str, metric: str) -> dict[str, float]:
        """Return a metric of each patient of whom the output is known, pooled over all slices measured.

        NaN where it has no value: no overlap with what is not there can be measured, so that a patient
        without the output has no Dice (see `painted`). Distances of slices from several folds are
        averaged, weighted by the slices.
        """
        known = {name: rows for name, rows in self.rows.items() if any(row.get(output) for row in rows)}
        if metric in _DISTANCES:
            return {name: _average([row.get(output) for row in rows], metric) for name, rows in known.items()}
        return {name: pooled(self.counts(rows, output), metric) for name, rows in known.items()}

    def painted(self, output: str) -> dict[str, float]:
        """Return, of each patient who is known not to have an output, in per cent what is painted of it."""
        found = {}
        for name, rows in self.rows.items():
            c = _sum(self.counts(rows, output))
            if c.fp + c.tn and not c.tp + c.fn:
                found[name] = 100 * c.fp / (c.fp + c.tn)
        return found

    def of_folds(self, names: Sequence[str]) -> Network:
        """Return the same with these folds only."""
        return replace(self, records=[record for record in self.records if record["fold"] in names])

    def mean(self, output: str, metric: str) -> Mean:
        """Return a metric's mean over the patients."""
        every = np.array(list(self.by_patient(output, metric).values()))
        values = every[np.isfinite(every)]
        sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        mean, low, high = interval(values)
        return Mean(mean, sd, low, high, len(values), len(every) - len(values))


def _matrix(numbers: Sequence[int], size: int) -> Counts:
    """Return the confusion matrix of a slice of so many pixels, all known if it is not said."""
    tp, fp, fn, *tn = numbers
    return Counts(tp, fp, fn, tn[0] if tn else size - tp - fp - fn)


def _sum(counts: Sequence[Counts | None]) -> Counts:
    return sum((c for c in counts if c is not None), Counts(0, 0, 0, 0))


def pooled(counts: Sequence[Counts | None], metric: str) -> float:
    """Return a metric of overlap over all slices at once; NaN for an overlap with what is not there."""
    c = _sum(counts)
    if metric in ("dice", "jaccard", "f1") and not c.tp + c.fn:
        return math.nan
    return overlaps(c)[metric]


def _average(rows: Sequence[Record | None], metric: str) -> float:
    there = [row for row in rows if row is not None and row[metric] is not None]
    weights = [sum(counts is not None for counts in row["by_slice"]) for row in there]
    return float(np.average([row[metric] for row in there], weights=weights)) if there else math.nan


def read_networks(folder: Path, only: Iterable[str] = ()) -> list[Network]:
    """Read the stored runs in a folder, the best by patient first.

    Parameters
    ----------
    folder : Path
    only : iterable of str
        Recipes; all by default.

    Raises
    ------
    JobError
        If a file is damaged.
    """
    records = [read_record(path) for path in sorted(folder.glob("*/*/fold*.json"))]
    wanted = set(only)
    found: dict[tuple[str, Protocol], list[Record]] = {}
    for record in records:
        if not wanted or record["recipe"] in wanted:
            found.setdefault((record["recipe"], record["protocol"]), []).append(record)
    networks = [Network(*key, of_one) for key, of_one in found.items()]
    return sorted(
        networks,
        key=lambda network: (network.protocol, -_first(network.mean("lesion", "dice").mean), network.recipe),
    )


def difference(network: Network, other: Network, output: str = "lesion", metric: str = "dice") -> Difference:
    """Compare two networks, or one under two protocols, on the patients that both have."""
    first, second = network.by_patient(output, metric), other.by_patient(output, metric)
    both = [name for name in first if math.isfinite(first[name] - second.get(name, math.nan))]
    values: Values = np.array([first[name] - second[name] for name in both])
    p = math.nan
    if len(values) > 1:
        from scipy import stats  # a second, for one figure

        p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return Difference(*interval(values), p, len(both))


def _first(value: float) -> float:
    return -1.0 if math.isnan(value) else value
