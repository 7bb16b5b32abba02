"""The shipped model on phantoms, which no training has seen.

    python benchmarks/phantoms.py [MODEL] [--record]

Ten phantoms with findings: Dice of the lungs, and of ground-glass and consolidation
together. Ten without: how much of the lungs is painted.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_covseg.labels import lesion
from napari_covseg.metrics import dice
from napari_covseg.models.catalogue import DEFAULT, find
from napari_covseg.models.file import load_model
from napari_covseg.predict.volume import predict_volume
from phantom_generator import phantom
from record import record

SEEDS = range(400, 410)


def main() -> None:
    """Print a row per phantom and the means."""
    parser = argparse.ArgumentParser(description="A model on phantoms that no training has seen.")
    parser.add_argument("model", nargs="?", default=DEFAULT, help="id or file")
    parser.add_argument("--record", action="store_true", help="write the means into the model's card")
    arguments = parser.parse_args()
    model = load_model(find(arguments.model).path, "auto")
    findings = [lesion("ground-glass").value, lesion("consolidation").value]
    print("phantom  lungs  lesions   without findings: painted % of lungs")
    rows = []
    for seed in SEEDS:
        made = phantom(seed)
        lungs, lesions = predict_volume(made.scan, model)
        truth = np.isin(made.lesions, findings)
        clear = phantom(seed, lesions=False)
        _, painted = predict_volume(clear.scan, model)
        share = 100 * np.count_nonzero(painted) / np.count_nonzero(clear.lungs)
        rows.append((dice(lungs > 0, made.lungs > 0), dice(lesions > 0, truth), share))
        print(f"{seed:7}  {rows[-1][0]:.3f}    {rows[-1][1]:.3f}   {share:.2f}", flush=True)
    mean, worst = np.mean(rows, 0), np.max(rows, 0)
    print(f"   mean  {mean[0]:.3f}    {mean[1]:.3f}   {mean[2]:.2f} (largest {worst[2]:.2f})")
    if arguments.record:
        means = {
            "lungs Dice": round(float(mean[0]), 3),
            "ground-glass and consolidation Dice": round(float(mean[1]), 3),
            "painted without findings, % of lungs": round(float(mean[2]), 2),
            "protocol": f"{len(rows)} phantoms with findings and {len(rows)} without",
        }
        record(arguments.model, "phantoms", means)


if __name__ == "__main__":
    main()
