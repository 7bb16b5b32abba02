"""The Dice of every patient as a picture: a box for each network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from napari_covseg.assess.comparison import Network
from napari_covseg.errors import JobError


def draw_boxes(networks: Sequence[Network], path: Path) -> None:
    """Draw the Dice by patient of lungs and lesions: median, quartiles, range, and the patients as dots.

    Parameters
    ----------
    networks : sequence of Network
    path : Path
        Picture to write; its ending chooses the format.

    Raises
    ------
    JobError
        If there is nothing to draw, matplotlib is not installed, or the picture cannot be written.
    """
    if not networks:
        raise JobError("There are no stored runs to draw: train a network first.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise JobError(
            "The figure needs matplotlib, which is not installed here: install napari-covseg[docs]."
        ) from error
    figure = Figure(figsize=(10, 1.2 + 0.5 * len(networks)), layout="constrained")
    names = [one.recipe + ("" if one.protocol == "patient" else f" (by {one.protocol})") for one in networks]
    places = range(len(networks), 0, -1)
    for axes, output, title in zip(
        figure.subplots(1, 2, sharey=True), ("lungs", "lesion"), ("lungs", "lesions"), strict=True
    ):
        columns = [
            [dice for dice in one.by_patient(output, "dice").values() if math.isfinite(dice)]
            for one in networks
        ]
        axes.boxplot(columns, positions=list(places), orientation="horizontal", widths=0.6, whis=(0, 100))
        for place, column in zip(places, columns, strict=True):
            axes.plot(column, [place] * len(column), "o", color="C0", alpha=0.5, markersize=4)
        axes.set(xlabel=f"Dice by patient, {title}")
        axes.set_yticks(list(places), names)
        axes.grid(axis="x", alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise JobError(f"{path} cannot be written ({error}): choose another name.") from error
