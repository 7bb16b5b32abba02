"""Choose how lung-window pictures are equalised, thresholded and given a margin, on patients that are named.

    COVSEG_DATA=... python benchmarks/calibrate.py FOLD_MODEL [FOLD_MODEL ...] [--cropped]
    COVSEG_DATA=... python benchmarks/calibrate.py MODEL --names
    COVSEG_DATA=... python benchmarks/calibrate.py MODEL --around

Every patient of radiopaedia_lungwindow is labelled by the first model that has not seen the patient. Of
each setting the lesion Dice is pooled over a patient's labelled slices and averaged over the patients; no
rule and no cleaning, so that all thresholds come from one pass. The last column is blind: each patient's
Dice with the setting that the *other* patients choose. With --cropped the pictures are cut to the lungs
first, as many collections are, and the margin around them is tried as well.

With --names the threshold of consolidation, against 0.5 of ground-glass, is chosen on one half of
covid_semiseg and measured on the other: which of the two a voxel of their union is (the card's threshold).
With --around what the margin of a cropped picture holds is, in the same way: its smallest value or its mean.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import evaluate
from napari_covseg.assess.comparison import interval
from napari_covseg.labels import UNION, UNITED, lesion
from napari_covseg.models import preparation
from napari_covseg.models.file import Model, load_model
from napari_covseg.models.preparation import reorient, reorient_back
from napari_covseg.predict import labelling
from napari_covseg.predict.ensemble import Ensemble, infer, united
from napari_covseg.predict.labelling import Labeller, to_labels
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans.appearance import Appearance, look

CLAHE = (0.0, 1.0, 2.0, 3.0, 5.0)
MARGINS = (0.0, 0.1, 0.15, 0.2, 0.3)
THRESHOLDS = tuple(round(0.05 * k, 2) for k in range(4, 15))
BATCH = 4

Mask = npt.NDArray[np.bool_]
Setting = tuple[float, float, float]
"""CLAHE, margin, threshold of the union."""


def labelled(case: evaluate.Case, cropped: bool) -> Iterator[tuple[npt.NDArray[np.int16], Mask]]:
    """Yield the labelled slices of a patient with their lesions, cut to the lungs if wanted."""
    for part in case.parts:
        for z in part.labelled:
            voxels, lesions, lungs = part.scan.voxels[z], part.truth[UNION][z], part.truth["lungs"][z]
            if cropped and lungs.any():
                rows, columns = np.flatnonzero(lungs.any(1)), np.flatnonzero(lungs.any(0))
                box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
                voxels, lesions = voxels[box], lesions[box]
            yield voxels, lesions


def counts(
    model: Model, slices: list[tuple[npt.NDArray[np.int16], Mask]], cropped: bool, margin: float, clahe: float
) -> dict[float, npt.NDArray[np.int64]]:
    """Return both, found and true pixels at each threshold, summed over the slices."""
    preparation.PICTURE_MARGIN = margin
    equalising = replace(model, preparation=replace(model.preparation, clahe_clip=clahe))
    seen = Appearance("grey", contrast="lung window", cropped=cropped)
    totals = {threshold: np.zeros(3, np.int64) for threshold in THRESHOLDS}
    for voxels, lesions in slices:
        ensemble = Ensemble((equalising,))
        labeller = Labeller(lambda z, voxels=voxels: voxels, ensemble, seen, None, {})
        probability = infer(ensemble, labeller.prepare([0])).probability
        union = reorient_back(united(probability, ensemble.card.outputs)[0].numpy(), seen)
        for threshold, total in totals.items():
            found = union >= threshold
            total += [np.count_nonzero(found & lesions), np.count_nonzero(found), np.count_nonzero(lesions)]
    return totals


NAMES = (0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
"""Thresholds of consolidation."""


AROUND: dict[str, Callable[[npt.NDArray[np.int16]], float]] = {
    "smallest": lambda slice_: float(slice_.min()),
    "mean": lambda slice_: float(slice_.mean()),
}
"""What the margin of a cropped picture can hold."""


def around(model: Model) -> None:
    """Print the Dice of the union on each half of covid_semiseg, with either thing around the pictures."""
    dice: dict[str, dict[str, list[float]]] = {}
    taught = {*model.card.split["training"], *model.card.split["validation"]}
    for case in evaluate.pictures(Path(os.environ["COVSEG_DATA"])):
        part = case.parts[0]
        for name, value in AROUND.items():

            def filled(slice_: Any, seen: Appearance, around: float | None = None, value: Any = value) -> Any:
                return reorient(slice_, seen, around=value(slice_) if around is None else around)

            labelling.reorient = filled
            _, found = predict_volume(part.scan, model, appearance=look(part.scan.voxels, "grey"))
            mine, true = np.isin(found[0], evaluate.INSIDE), part.truth[UNION][0]
            both = 2 * np.count_nonzero(mine & true) / max(np.count_nonzero(mine) + true.sum(), 1)
            dice.setdefault(case.patient, {}).setdefault(name, []).append(float(both))
    for half, other in zip(dice, [*dice][::-1], strict=True):
        shown = ", ".join(f"{name} {np.mean(values):.3f}" for name, values in dice[half].items())
        best = max(AROUND, key=lambda name: np.mean(dice[half][name]))
        gain = interval(np.array(dice[other]["mean"]) - np.array(dice[other]["smallest"]))
        blind = "taught" if other in taught else "blind"
        print(
            f"{half}: {shown}; chosen: {best}, on {other} ({blind}) {np.mean(dice[other][best]):.3f}; mean "
            f"less smallest there {gain[0]:+.3f} ({gain[1]:+.3f} to {gain[2]:+.3f})"
        )


def names(model: Model) -> None:
    """Print the Dice of ground-glass and consolidation, each the mean over the pictures that have it."""
    dice: dict[float, list[list[float]]] = {level: [] for level in NAMES}
    halves, taught = [], {*model.card.split["training"], *model.card.split["validation"]}
    ensemble = Ensemble((model,))
    for case in evaluate.pictures(Path(os.environ["COVSEG_DATA"])):
        voxels = case.parts[0].scan.voxels
        seen = look(voxels, "grey")
        labeller = Labeller(voxels.__getitem__, ensemble, seen, None, {})
        probability = infer(ensemble, labeller.prepare([0])).probability
        for level in NAMES:
            levels = {**ensemble.thresholds, "ground-glass": 0.5, "consolidation": level}
            _, lesions = to_labels(probability, ensemble.card.outputs, levels)
            found = reorient_back(lesions[0], replace(seen, inverted=False))
            row = []
            for name in UNITED:
                mine, true = found == lesion(name).value, case.parts[0].truth[name][0]
                both = 2 * np.count_nonzero(mine & true) / max(np.count_nonzero(mine) + true.sum(), 1)
                row.append(float(both) if true.any() else np.nan)
            dice[level].append(row)
        halves.append(case.patient)
    half = np.array(halves)
    print(f"{'':>13} " + "  ".join(f"{name}: {' / '.join(UNITED)}" for name in np.unique(half)))
    mean = {
        name: {level: np.nanmean(np.array(dice[level])[half == name], 0) for level in NAMES}
        for name in np.unique(half)
    }
    for level in NAMES:
        figures = "  ".join(f"{of[level][0]:.3f} / {of[level][1]:.3f}" for of in mean.values())
        print(f"consolidation {level:4g}  {figures}")
    for name, other in zip(mean, [*mean][::-1], strict=True):
        best = max(NAMES, key=lambda level: mean[name][level].mean())
        blind = "taught" if other in taught else "blind"
        shown = " / ".join(f"{value:.3f}" for value in mean[other][best])
        print(f"chosen on {name}: {best:g}; on {other} ({blind}): {shown}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path)
    parser.add_argument("--names", action="store_true", help="what tells consolidation from ground-glass")
    parser.add_argument("--around", action="store_true", help="what the margin of a picture holds")
    parser.add_argument("--cropped", action="store_true", help="cut the pictures to the lungs")
    given = parser.parse_args()
    models = [load_model(path, "cpu") for path in given.models]
    if given.names or given.around:
        (names if given.names else around)(models[0])
        return
    dice: dict[Setting, dict[str, float]] = {}
    for case in evaluate.window(Path(os.environ["COVSEG_DATA"])):
        unseen = [
            m for m in models if case.patient not in {*m.card.split["training"], *m.card.split["validation"]}
        ]
        if not unseen:
            continue
        slices = list(labelled(case, given.cropped))
        for clahe, margin in product(CLAHE, MARGINS if given.cropped else (0.0,)):
            for threshold, (both, found, true) in counts(
                unseen[0], slices, given.cropped, margin, clahe
            ).items():
                dice.setdefault((clahe, margin, threshold), {})[case.patient] = (
                    2 * both / max(found + true, 1)
                )
        print(f"{case.patient}: {len(slices)} slices by {unseen[0].card.id}", flush=True)
    patients = sorted(next(iter(dice.values())))
    mean = {setting: float(np.mean(list(values.values()))) for setting, values in dice.items()}
    print(f"\n{'CLAHE':>5} {'margin':>6} {'best threshold':>14} {'Dice':>6} {'at 0.5':>6}")
    for clahe, margin in product(CLAHE, MARGINS if given.cropped else (0.0,)):
        best = max(THRESHOLDS, key=lambda threshold: (mean[clahe, margin, threshold], -abs(threshold - 0.5)))
        print(
            f"{clahe:5g} {margin:6g} {best:14g} {mean[clahe, margin, best]:6.3f} "
            f"{mean[clahe, margin, 0.5]:6.3f}"
        )
    chosen = max(mean, key=lambda setting: mean[setting])
    print(
        f"\nchosen on {', '.join(patients)}: CLAHE {chosen[0]:g}, margin {chosen[1]:g}, "
        f"threshold {chosen[2]:g}"
    )
    if len(patients) > 1:
        blind = []
        for patient in patients:
            others = {s: np.mean([v for name, v in d.items() if name != patient]) for s, d in dice.items()}
            blind.append(dice[max(others, key=lambda setting: others[setting])][patient])
        print(f"blind, each patient with what the others choose: {np.mean(blind):.3f}")


if __name__ == "__main__":
    main()
