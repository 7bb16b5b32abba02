"""Tables of simulated patients: Markdown for people, CSV for everything else."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from napari_covseg.assess.summary import Record, Values, by_patient, curve, forgotten_at, interval, paired
from napari_covseg.edit.order import DEFAULT_STRATEGY, STRATEGIES

LOOKS = (0, 5, 10)
"""Corrected slices at which the tables look."""
_BASIS = "position"
"""Evenly spaced slices: what another strategy has to beat."""


def effort_tables(records: Sequence[Record]) -> str:
    """Return what was measured as Markdown: by patient, by strategy, and what was forgotten."""
    parts = [_patients_table(records), _strategies_table(records), _forgetting_table(records)]
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
    return f"### By patient, in the order `{strategy}`\n\n" + _table(["Patient", "Slices", *heads], rows)


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
    return "### By strategy\n\n" + _table(heads, rows)


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
    return "### Forgetting and time\n\n" + _table(heads, rows)


def _efforts(runs: dict[str, list[Record]]) -> Values:
    """Strokes and clicks of each patient by the last look."""
    both = curve(runs, [LOOKS[-1]], "strokes") + curve(runs, [LOOKS[-1]], "clicks")
    return np.asarray(both[:, 0], np.float64)


def _shown(mean: tuple[float, float, float], sign: bool = False) -> str:
    form = "+.3f" if sign else ".3f"
    return f"{mean[0]:{form}} ({mean[1]:{form}} to {mean[2]:{form}})"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    filled = [[*row, *[""] * (len(heads) - len(row))] for row in rows]
    lines = [heads, ["---"] * len(heads), *filled]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
