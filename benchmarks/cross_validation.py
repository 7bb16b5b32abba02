"""Dice by patient, each predicted by the fold model that did not see it.

    COVSEG_DATA=... python benchmarks/cross_validation.py [--record MODEL]

With ``--record`` the means go into the card of a model that learned from all patients.
The fold models in ``benchmarks/folds`` were written by ``covseg train
benchmarks/training.toml --fold K --out benchmarks/folds/foldK.safetensors``. The whole way
is measured as the shipped model's card asks for it: network, second look, threshold,
cleaning. Overlap is pooled over a patient's slices and then averaged over the patients; the
interval is a bootstrap over patients.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import get_args

import numpy as np

from napari_covseg.learn.training_set import read_training_set
from napari_covseg.metrics import dice
from napari_covseg.models.catalogue import find
from napari_covseg.models.file import load_model
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.options import Tta
from napari_covseg.predict.slices import SliceOrder, predict_slices
from napari_covseg.scans.appearance import PREPARED
from record import record

HERE = Path(__file__).parent


def main() -> None:
    """Print a row per patient and the mean."""
    parser = argparse.ArgumentParser(description="Dice by patient of the fold models.")
    parser.add_argument("--record", metavar="MODEL", help="write the means into the card of this model")
    parser.add_argument("--tta", default="card", choices=get_args(Tta), help="default: the shipped model's")
    parser.add_argument("--threshold", type=float, help="of the lesions; default: the shipped model's")
    arguments = parser.parse_args()
    shipped = find("unet-lungs-lesion").card
    tta = shipped.tta if arguments.tta == "card" else arguments.tta
    level = shipped.thresholds["lesion"] if arguments.threshold is None else arguments.threshold
    print(f"test-time augmentation: {tta}; lesions from a probability of {level:g}")
    data = read_training_set(HERE / "training.toml")
    rows: list[tuple[float, float]] = []
    print(f"{'patient':18} fold slices   lungs  lesions")
    for fold, patients in data.folds.items():
        model = load_model(HERE / "folds" / f"fold{fold}.safetensors", "auto")
        seen = {*model.card.split["training"], *model.card.split["validation"]}
        if seen & set(patients):
            sys.exit(f"fold {fold}: its model has seen {', '.join(sorted(seen & set(patients)))}")
        for patient in sorted(patients):
            one = data.only({patient})
            images = one.images.astype(np.int16)
            lungs, lesions = np.zeros(images.shape, bool), np.zeros(images.shape, bool)
            order = SliceOrder(len(images))
            asked = Ensemble((model,), tta)
            for predictions in predict_slices(
                images.__getitem__, asked, order, appearance=PREPARED, thresholds={"lesion": level}
            ):
                for predicted in predictions:
                    lungs[predicted.z], lesions[predicted.z] = predicted.lungs > 0, predicted.lesions > 0
            rows.append((dice(lungs, one.masks[:, 0]), dice(lesions, one.masks[:, 1])))
            print(
                f"{patient:18} {fold:>4} {len(images):6}   {rows[-1][0]:.3f}    {rows[-1][1]:.3f}", flush=True
            )
    scores = np.array(rows)
    draws = np.random.default_rng(0).integers(len(scores), size=(10_000, len(scores)))
    low, high = np.percentile(scores[draws].mean(1), [2.5, 97.5], axis=0)
    means: dict[str, object] = {}
    for column, name in enumerate(("lungs", "lesions")):
        mean, deviation = scores[:, column].mean(), scores[:, column].std(ddof=1)
        interval = [round(float(low[column]), 3), round(float(high[column]), 3)]
        print(f"{name}: Dice {mean:.3f} +- {deviation:.3f}, 95 % interval {interval[0]}-{interval[1]}")
        means |= {f"{name} Dice": round(float(mean), 3), f"{name} 95 % interval": interval}
    if arguments.record:
        means["protocol"] = (
            f"{len(scores)} patients in {len(data.folds)} folds, each predicted by a model that has not seen "
            "the patient; Dice pooled over a patient's slices, then averaged; bootstrap over patients; "
            f"test-time augmentation: {tta}; lesions from a probability of {level:g}"
        )
        record(arguments.record, "cross-validation", means)


if __name__ == "__main__":
    main()
