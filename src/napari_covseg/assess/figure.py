"""The curves of simulated patients as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_covseg.assess.summary import Record, by_patient, curve, interval
from napari_covseg.edit.order import STRATEGIES
from napari_covseg.errors import JobError

_NAMES = {
    "position": "evenly spaced",
    "uncertainty": "uncertainty",
    "disagreement": "disagreement",
    "gain": "gain",
}


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
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise JobError(
            "The figure needs matplotlib, which is not installed here: install napari-covseg[docs]."
        ) from error
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
