"""Curves of findings along the slices of scans, as *Triage* draws them, for a person to look at.

    python benchmarks/manifestation_curves.py SCAN [SCAN ...] [--model covseg-manifestations] [--figure PNG]

Prints for each finding the share of the slices in which it is found, where, and its highest probability.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from napari_covseg.models.catalogue import find
from napari_covseg.models.file import load_model
from napari_covseg.models.forward import as_input, probabilities
from napari_covseg.models.preparation import as_shown
from napari_covseg.scans import read_scan
from napari_covseg.scans.stated import look_at

BATCH = 8


def main() -> None:
    """Ask the model about each slice, print and draw."""
    parser = argparse.ArgumentParser(description="Curves of findings along the slices of scans.")
    parser.add_argument("scans", nargs="+", type=Path)
    parser.add_argument("--model", default="covseg-manifestations")
    parser.add_argument("--figure", type=Path)
    arguments = parser.parse_args()
    model = load_model(find(arguments.model, "manifestations").path, "cpu")
    curves = {}
    for path in arguments.scans:
        scan = read_scan(path)
        appearance = look_at(scan)
        shown = np.stack([as_shown(slice_, appearance, model.preparation) for slice_ in scan.voxels])
        with torch.inference_mode():
            parts = [
                probabilities(
                    model.network, as_input(shown[z : z + BATCH]), model.card.outputs, model.card.task
                )
                for z in range(0, len(shown), BATCH)
            ]
        sure = curves[scan.name] = torch.cat(parts).numpy()
        found = sure >= [model.card.thresholds[name] for name in model.card.outputs]
        print(f"{scan.name}: nothing on {1 - found.any(1).mean():.1%} of {len(sure)} slices")
        for number, name in enumerate(model.card.outputs):
            where = np.flatnonzero(found[:, number])
            place = f"{where[0]} to {where[-1]}" if len(where) else "none"
            share, most = found[:, number].mean(), sure[:, number].max()
            print(f"  {name}: {share:.1%} of the slices ({place}), highest {most:.2f}")
    if arguments.figure:
        draw(curves, model.card.outputs, arguments.figure)


def draw(curves: dict[str, np.ndarray], names: tuple[str, ...], out: Path) -> None:
    """Draw a row for each scan."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, rows = plt.subplots(
        len(curves), 1, squeeze=False, figsize=(8, 2.2 * len(curves)), layout="constrained"
    )
    for (title, sure), axes in zip(curves.items(), rows[:, 0], strict=True):
        axes.plot(sure, label=names)
        axes.set(title=title, ylim=(0, 1), xlabel="slice from the feet", ylabel="probability")
    rows[0, 0].legend()
    figure.savefig(out)


if __name__ == "__main__":
    main()
