"""Simulated patients as curves, means and intervals: Markdown and a picture for people, CSV for the rest."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_covseg.assess.comparison import Record, Values, interval
from napari_covseg.assess.tables import table
from napari_covseg.errors import JobError
from napari_covseg.review.order import DEFAULT_STRATEGY, STRATEGIES

LOOKS = (0, 5, 10)
"""Corrected slices at which the tables look."""
_BASIS = "position"
"""Evenly spaced slices: what another strategy has to beat."""
_NAMES = {
    "position": "evenly spaced",
    "uncertainty": "uncertainty",
    "disagreement": "disagreement",
    "gain": "gain",
}


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
    rounds = [round_ for round_ in record["rounds"] if round_["corrected"] <= corrected]
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
    rows = [
        [np.mean([value_at(record, k, key) for record in seeds]) for k in grid] for seeds in runs.values()
    ]
    return np.array(rows, np.float64).reshape(-1, len(grid))


def paired(one: dict[str, list[Record]], other: dict[str, list[Record]], corrected: int) -> Values:
    """Return the Dice of `one` less that of `other`, for each patient that both have."""
    both = sorted(set(one) & set(other))
    first = curve({name: one[name] for name in both}, [corrected])
    second = curve({name: other[name] for name in both}, [corrected])
    return np.asarray((first - second)[:, 0], np.float64)


def effort_tables(records: Sequence[Record]) -> str:
    """Return what was measured as Markdown: by patient, by strategy, and what was forgotten."""
    parts = [_patients_table(records), _strategies_table(records), _forgetting_table(records)]
    parts.append(
        "Lungs are those that the model itself finds, for fine-tuning as well: no lungs of the truth help."
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def points_csv(records: Iterable[Record]) -> str:
    """Return every point of every curve as CSV text with a header."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keys = ("corrected", "strokes", "clicks", "dice", "versions")
    writer.writerow(("patient", "slices", "strategy", "condition", "seed", *keys))
    for record in records:
        protocol = record["protocol"]
        start = [
            record["patient"],
            record["slices"],
            *(protocol[k] for k in ("strategy", "condition", "seed")),
        ]
        writer.writerows([*start, *(point[key] for key in keys)] for point in record["points"])
    return out.getvalue()


def _patients_table(records: Sequence[Record]) -> str:
    """Dice of the rest, and the effort so far, in the order that the interface proposes."""
    for strategy in dict.fromkeys((DEFAULT_STRATEGY, _BASIS)):
        tuned, plain = (by_patient(records, strategy, condition) for condition in ("memory", "none"))
        if tuned:
            break
    else:
        return ""
    heads = [f"Dice at {k}" for k in LOOKS] + [f"without, at {k}" for k in LOOKS[1:]]
    heads += [f"strokes + clicks by {LOOKS[-1]}", "without"]
    rows = []
    columns = [curve(tuned, LOOKS), curve(plain, LOOKS[1:])] if plain else [curve(tuned, LOOKS)]
    efforts = [_efforts(runs) for runs in (tuned, plain)]
    for row, (name, runs) in enumerate(tuned.items()):
        same = list(plain).index(name) if name in plain else None
        cells = [f"{value:.3f}" for value in columns[0][row]]
        cells += ["–"] * 2 if same is None else [f"{value:.3f}" for value in columns[1][same]]
        cells += [f"{efforts[0][row]:.0f}", "–" if same is None else f"{efforts[1][same]:.0f}"]
        rows.append([name, str(runs[0]["slices"]), *cells])
    means = [interval(column) for values in columns for column in values.T]
    rows.append(["**mean**", "", *(_shown(mean) for mean in means)])
    return f"### By patient, in the order `{strategy}`\n\n" + table(["Patient", "Slices", *heads], rows)


def _strategies_table(records: Sequence[Record]) -> str:
    rows = []
    for strategy in STRATEGIES:
        for condition, name in (("memory", "learns"), ("guide", "guided"), ("none", "neither")):
            runs, basis = by_patient(records, strategy, condition), by_patient(records, _BASIS, condition)
            if not runs:
                continue
            row = [strategy, name, str(len(runs))]
            row += [_shown(interval(column)) for column in curve(runs, LOOKS[1:]).T]
            for k in LOOKS[1:]:
                both = strategy != _BASIS and set(runs) & set(basis)
                row.append(_shown(interval(paired(runs, basis, k)), sign=True) if both else "–")
            rows.append([*row, f"{_efforts(runs).mean():.0f}"])
    if not rows:
        return ""
    heads = ["Strategy", "Model", "Patients", *(f"Dice at {k}" for k in LOOKS[1:])]
    heads += [f"less evenly spaced, at {k}" for k in LOOKS[1:]] + [f"strokes + clicks by {LOOKS[-1]}"]
    return "### By strategy\n\n" + table(heads, rows)


def _forgetting_table(records: Sequence[Record]) -> str:
    rows = []
    both = (("memory", "with"), ("no-memory", "without"))
    for strategy, (condition, name) in itertools.product(STRATEGIES, both):
        runs = by_patient(records, strategy, condition)
        if not runs:
            continue
        row = [strategy, name, str(len(runs))]
        for key in ("forgotten", "unseen"):
            for k in LOOKS[1:]:
                lost = np.array(
                    [np.mean([forgotten_at(one, k, key) for one in seeds]) for seeds in runs.values()]
                )
                row.append(_shown(interval(lost[np.isfinite(lost)]), sign=True))
        row += [_shown(interval(column)) for column in curve(runs, LOOKS[1:]).T]
        seconds = [one["seconds"] for seeds in runs.values() for run in seeds for one in run["rounds"]]
        rows.append([*row, f"{np.median(seconds):.0f}" if seconds else "–"])
    if not rows:
        return ""
    heads = ["Strategy", "Memory", "Patients", *(f"forgotten after {k}" for k in LOOKS[1:])]
    heads += [f"on unseen patients, after {k}" for k in LOOKS[1:]]
    heads += [*(f"Dice at {k}" for k in LOOKS[1:]), "seconds per fine-tuning (median)"]
    return "### Forgetting and time\n\n" + table(heads, rows)


def _efforts(runs: dict[str, list[Record]]) -> Values:
    """Strokes and clicks of each patient by the last look."""
    both = curve(runs, [LOOKS[-1]], "strokes") + curve(runs, [LOOKS[-1]], "clicks")
    return np.asarray(both[:, 0], np.float64)


def _shown(mean: tuple[float, float, float], sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{mean[0]:{form}} ({mean[1]:{form}} to {mean[2]:{form}})"


def check_matplotlib() -> None:
    """Raise JobError if figures cannot be drawn: before the hours that it takes to have something to draw."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise JobError(
            "The figure needs matplotlib, which is not installed here: run `pip install "
            "'napari-covseg[figures]'`."
        ) from error


def draw_effort(records: Sequence[Record], path: Path, *, most: int | None = None) -> None:
    """Draw Dice on the slices that are not corrected against slices, and against strokes and clicks.

    Parameters
    ----------
    records : sequence of dict
    path : Path
        Picture to write; its ending chooses the format.
    most : int, optional
        Corrected slices at the right edge; by default as many as any run has.

    Raises
    ------
    JobError
        If matplotlib is not installed, or the picture cannot be written.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    last = most or max(point["corrected"] for record in records for point in record["points"])
    grid = list(range(last + 1))
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    slices, strokes = figure.subplots(1, 2, sharey=True)
    for colour, strategy in enumerate(STRATEGIES):
        for condition, style in (("memory", "-"), ("none", ":")):
            if runs := by_patient(records, strategy, condition):
                label = f"{_NAMES[strategy]}, {'with' if condition == 'memory' else 'without'} fine-tuning"
                _draw(slices, strokes, runs, grid, f"C{colour}", style, label)
    slices.set(xlabel="slices corrected", ylabel="lesion Dice on slices not corrected")
    strokes.set(xlabel="strokes and clicks (mean)")
    slices.legend(fontsize=7, frameon=False)
    for axes in (slices, strokes):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise JobError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error


def _draw(
    slices: Any,
    strokes: Any,
    runs: dict[str, list[Record]],
    grid: list[int],
    colour: str,
    style: str,
    label: str,
) -> None:
    dice = curve(runs, grid)
    efforts = (curve(runs, grid, "strokes") + curve(runs, grid, "clicks")).mean(0)
    mean, low, high = np.array([interval(column) for column in dice.T]).T
    slices.plot(grid, mean, color=colour, linestyle=style, label=label)
    if colour == "C0":
        slices.fill_between(grid, low, high, color=colour, alpha=0.12, linewidth=0)
    strokes.plot(efforts, mean, color=colour, linestyle=style, marker=".", markersize=3)
