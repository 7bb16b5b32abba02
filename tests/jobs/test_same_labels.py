"""One way from voxels to labels: Run, Refine without hints and the guide without corrections agree."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_covseg.cases.case import Case
from napari_covseg.cases.merge import merge_prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.events import PredictionStarted
from napari_covseg.jobs.requests import Predict, Refine
from napari_covseg.jobs.run import run
from napari_covseg.predict.options import PredictOptions
from napari_covseg.scans import Scan, read_scan
from phantom import phantom

MODEL = "covseg"


def ten_slices(scan: Scan) -> Scan:
    middle = len(scan.voxels) // 2
    voxels = scan.voxels[middle - 5 : middle + 5]
    return replace(scan, voxels=voxels, source_shape=voxels.shape)


def scans() -> list[object]:
    found: list[object] = [pytest.param(None, id="phantom")]
    if data := os.environ.get("COVSEG_DATA"):
        found += [pytest.param(Path(data) / "dicom_covid_P002", id="real HU")]
        found += [
            pytest.param(Path(data) / "radiopaedia_lungwindow" / "radiopaedia_d" / "ct", id="real pictures")
        ]
    return found


def prediction(case: Case, job: Predict | Refine) -> list[tuple[np.ndarray, np.ndarray]]:
    """The labels of a job: of all slices, or of the one that it labels."""
    name = next(event.prediction_id for event in list(run(job)) if isinstance(event, PredictionStarted))
    kept = case.prediction(name)
    return [kept.read_slice(int(z)) for z in np.flatnonzero(kept.done)]


@pytest.mark.slow
@pytest.mark.parametrize("folder", scans())
@pytest.mark.parametrize(
    "options",
    [PredictOptions(), PredictOptions(threshold=0.3, tta="flip", min_pixels=40)],
    ids=["card", "own"],
)
def test_refine_and_guide_equal_run(tmp_path: Path, folder: Path | None, options: PredictOptions) -> None:
    scan = phantom(3, (16, 160, 160), (7.0, 2.0, 2.0)).scan if folder is None else read_scan(folder)
    workspace = Workspace.open(tmp_path / "workspace")
    case = workspace.case(workspace.add_case(ten_slices(scan)))
    job = Predict(workspace.path, case.id, MODEL, 0, device="cpu", options=options)
    whole = prediction(case, job)
    assert len(whole) == 10 and any(lungs.any() for lungs, _ in whole)
    guided = prediction(case, replace(job, guided=True))
    np.testing.assert_array_equal(guided, whole)
    merge_prediction(case, case.prediction(case.predictions()[0].id))
    nothing = np.zeros(case.shape[1:], bool)
    for z, expected in enumerate(whole):
        refine = Refine(workspace.path, case.id, MODEL, z, 2, nothing, nothing, device="cpu", options=options)
        (labels,) = prediction(case, refine)
        np.testing.assert_array_equal(labels, expected, f"slice {z}")
