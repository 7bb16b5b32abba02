"""Networks side by side, from stored runs: means over patients, intervals, differences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from scipy import stats

from napari_covseg.assess.stored_run import PLAIN, Protocol, Record, read_record
from napari_covseg.assess.summary import Values, interval
from napari_covseg.labels import OUTPUTS
from napari_covseg.metrics.figure import SURFACES, Empty, Figure
from napari_covseg.metrics.overlap import Counts, overlaps


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
        return {one["fold"] for one in self.records} == set(self.records[0]["folds"])

    @property
    def outputs(self) -> tuple[str, ...]:
        """What was measured, in the order of `labels.OUTPUTS`."""
        there = {name for record in self.records for name in record.get("outputs", PLAIN)}
        return tuple(name for name in OUTPUTS if name in there)

    @property
    def seconds(self) -> float:
        """Mean time of training of a fold."""
        return float(np.mean([one["seconds"] for one in self.records]))

    def of(self, key: str) -> str:
        """Return a setting of the runs in words: all that occur."""
        values = dict.fromkeys(one[key] for one in self.records)
        numbers = sorted(value for value in values if isinstance(value, int | float))
        if len(numbers) > 1:
            return f"{numbers[0]}–{numbers[-1]}"
        return ", ".join(str(value) for value in values)

    @cached_property
    def _rows(self) -> dict[str, list[Record]]:
        """The rows of each patient: one, or with the protocol "slice" one for each fold."""
        rows: dict[str, list[Record]] = {}
        for record in self.records:
            for row in record["rows"]:
                rows.setdefault(row["patient"], []).append(row)
        return dict(sorted(rows.items()))

    def _counts(self, rows: Sequence[Record], output: str) -> list[Counts | None]:
        """The confusion matrix of each slice; None where nothing of it is known."""
        size = int(self.records[0]["grid"]) ** 2
        slices = (one for row in rows if row.get(output) for one in row[output]["by_slice"])
        return [None if one is None else _matrix(one, size) for one in slices]

    def slices(self) -> dict[str, int]:
        """Return the number of slices that each patient was measured on."""
        return {name: sum(row["slices"] for row in rows) for name, rows in self._rows.items()}

    def by_patient(self, output: str, metric: str) -> dict[str, float]:
        """Return a metric of each patient of whom the output is known, pooled over all slices measured.

        NaN where it has no value: no overlap with what is not there can be measured, so that a patient
        without the output has no Dice (see `painted`). Distances of slices from several folds are
        averaged, weighted by the slices.
        """
        known = {name: rows for name, rows in self._rows.items() if any(row.get(output) for row in rows)}
        if metric in SURFACES:
            return {name: _average([row.get(output) for row in rows], metric) for name, rows in known.items()}
        return {name: _pooled(self._counts(rows, output), metric) for name, rows in known.items()}

    def painted(self, output: str) -> dict[str, float]:
        """Return, of each patient who is known not to have an output, in per cent what is painted of it."""
        found = {}
        for name, rows in self._rows.items():
            c = _sum(self._counts(rows, output))
            if c.fp + c.tn and not c.tp + c.fn:
                found[name] = 100 * c.fp / (c.fp + c.tn)
        return found

    def of_folds(self, names: Sequence[str]) -> Network:
        """Return the same with these folds only."""
        return replace(self, records=[one for one in self.records if one["fold"] in names])

    def mean(self, output: str, metric: str) -> Mean:
        """Return a metric's mean over the patients."""
        every = np.array(list(self.by_patient(output, metric).values()))
        values = every[np.isfinite(every)]
        sd = float(values.std(ddof=1)) if len(values) > 1 else math.nan
        mean, low, high = interval(values)
        return Mean(mean, sd, low, high, len(values), len(every) - len(values))

    def pooled(self, output: str, metric: str = "dice") -> Figure:
        """Return a metric of overlap over all slices of all patients at once."""
        value = _pooled([c for rows in self._rows.values() for c in self._counts(rows, output)], metric)
        return Figure(value, math.nan, 0 if math.isnan(value) else 1, int(math.isnan(value)))

    def by_slice(
        self, output: str, metric: str = "dice", *, infected: bool = False, empty: Empty = "left out"
    ) -> Figure:
        """Return the mean of a metric over slices.

        Parameters
        ----------
        output : str
        metric : str
            Of overlap, or ``"assd"``.
        infected : bool
            Only of slices on which there is something to be found.
        empty : {"left out", "agree"}
            As for `metrics.figure`.
        """
        rows = [row for some in self._rows.values() for row in some]
        counts = self._counts(rows, output)
        if metric == "assd":
            told = [one for row in rows if row.get(output) for one in row[output]["assd_by_slice"]]
            values = [math.nan if one is None else float(one) for one in told]
        else:
            values = [math.nan if c is None else overlaps(c)[metric] for c in counts]
        known = [(value, c) for value, c in zip(values, counts, strict=True) if c is not None]
        chosen = [one for one in known if not infected or one[1].tp + one[1].fn]
        without = sum(math.isnan(value) for value, _ in chosen)
        if empty == "agree":
            chosen = [(_agreed(value, c, metric), c) for value, c in chosen]
        kept = [value for value, _ in chosen if not math.isnan(value)]
        sd = float(np.std(kept, ddof=1)) if len(kept) > 1 else math.nan
        return Figure(float(np.mean(kept)) if kept else math.nan, sd, len(kept), without)


def _matrix(numbers: Sequence[int], size: int) -> Counts:
    """Return the confusion matrix of a slice of so many pixels, all known if it is not said."""
    tp, fp, fn, *tn = numbers
    return Counts(tp, fp, fn, tn[0] if tn else size - tp - fp - fn)


def _sum(counts: Sequence[Counts | None]) -> Counts:
    return sum((c for c in counts if c is not None), Counts(0, 0, 0, 0))


def _pooled(counts: Sequence[Counts | None], metric: str) -> float:
    c = _sum(counts)
    if metric in ("dice", "jaccard", "f1") and not c.tp + c.fn:
        return math.nan
    return overlaps(c)[metric]


def _average(rows: Sequence[Record | None], metric: str) -> float:
    there = [row for row in rows if row is not None and row[metric] is not None]
    weights = [sum(one is not None for one in row["by_slice"]) for row in there]
    return float(np.average([row[metric] for row in there], weights=weights)) if there else math.nan


def _agreed(value: float, c: Counts, metric: str) -> float:
    """Give a slice without a value the best one if both masks are empty, and 0 if only one is."""
    if not math.isnan(value):
        return value
    both = c.tp + c.fp + c.fn == 0
    if metric == "assd":
        return 0.0 if both else math.nan
    return float(both)


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
        networks, key=lambda one: (one.protocol, -_first(one.mean("lesion", "dice").mean), one.recipe)
    )


def difference(one: Network, other: Network, output: str = "lesion", metric: str = "dice") -> Difference:
    """Compare two networks, or one under two protocols, on the patients that both have."""
    first, second = one.by_patient(output, metric), other.by_patient(output, metric)
    both = [name for name in first if math.isfinite(first[name] - second.get(name, math.nan))]
    values: Values = np.array([first[name] - second[name] for name in both])
    p = math.nan
    if len(values) > 1:
        p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return Difference(*interval(values), p, len(both))


def _first(value: float) -> float:
    return -1.0 if math.isnan(value) else value
