"""The package from Python: one call labels a scan, the page's ten lines run as they stand there."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import napari_covseg
from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace_models import WorkspaceModels
from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Event
from napari_covseg.learn.train import TrainingProgress
from napari_covseg.predict.options import PredictOptions
from napari_covseg.scans import Scan
from phantom import Phantom, phantom

PAGE = Path(__file__).parent.parent / "docs" / "python.md"


@pytest.fixture(scope="module")
def chest() -> Phantom:
    return phantom(4, (4, 96, 96), (50.0, 3.7, 3.7))


@pytest.fixture
def scan(chest: Phantom) -> Scan:
    return chest.scan


def test_one_call_labels_a_scan(scan: Scan, untrained_file: Path, tmp_path: Path) -> None:
    done: list[tuple[int, int]] = []
    labels = napari_covseg.segment(
        scan,
        untrained_file,
        device="cpu",
        probabilities=True,
        options=PredictOptions(uncertainty=True),
        progress=lambda *now: done.append(now),
    )
    shape = scan.voxels.shape
    assert labels.lungs.shape == labels.lesions.shape == shape and labels.uncertainty is not None
    assert labels.outputs == ("lungs", "lesion")
    assert labels.probabilities is not None and labels.probabilities.shape == (shape[0], 2, *shape[1:])
    assert done[0] == (0, 4) and done[-1] == (4, 4)
    labels.write(tmp_path / "lungs.nii.gz", "lungs")
    assert nib.load(tmp_path / "lungs.nii.gz").shape == shape[::-1]


def test_what_is_no_chest_is_refused(scan: Scan, untrained_file: Path) -> None:
    with pytest.raises(JobError, match="--anyway"):
        napari_covseg.segment(replace(scan, voxels=np.zeros_like(scan.voxels)), untrained_file, device="cpu")


def test_the_page_runs_as_it_stands(
    chest: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len([line for line in code.splitlines() if line and "import" not in line]) <= 10
    monkeypatch.chdir(tmp_path)
    dz, dy, dx = chest.scan.spacing or (1.0, 1.0, 1.0)
    image = nib.Nifti1Image(chest.scan.voxels.transpose(2, 1, 0), np.diag([-dx, -dy, dz, 1.0]))
    nib.save(image, "scan.nii.gz")
    exec(compile(code, str(PAGE), "exec"), {})
    assert re.search(r"\d+ ml of lung", capsys.readouterr().out)
    assert np.asarray(nib.load("lungs.nii.gz").dataobj).any()


def test_a_model_is_trained_and_learns_from_what_a_person_corrected(chest: Phantom, tmp_path: Path) -> None:
    shown = np.clip((chest.scan.voxels + 1350) / 1500 * 255, 0, 255)
    pictures = {"ct": shown, "lungs": 255 * (chest.lungs > 0), "infection": 255 * (chest.lesions == 1)}
    for patient in ("a", "b", "c"):
        for part, values in pictures.items():
            (tmp_path / "data" / patient / part).mkdir(parents=True)
            Image.fromarray(values[1].astype(np.uint8)).save(tmp_path / "data" / patient / part / "0.png")
    (tmp_path / "tiny.toml").write_text(
        '[tiny]\nnetwork = "unet"\nsettings = {features = [4], bottleneck = 4}\npreparation = {size = 64}\n'
        "steps = 9\nbatch = 1\n"
    )
    told: list[TrainingProgress] = []
    card = napari_covseg.train(
        tmp_path / "data", tmp_path / "mine.safetensors", str(tmp_path / "tiny.toml"),
        steps=2, test=["c"], device="cpu", progress=told.append,
    )  # fmt: skip
    assert card.id == "mine" and card.split["test"] == ["c"] and told[-1].steps == 2

    workspace = napari_covseg.Workspace.open(tmp_path / "workspace")
    case_id = workspace.add_case(chest.scan)
    with OpenCase(workspace, case_id) as opened:
        for z in range(3):
            voxels = np.nonzero((np.arange(4)[:, None, None] == z) & (chest.lungs > 0))
            before = opened.live["lungs"][voxels]
            opened.live["lungs"][voxels] = chest.lungs[voxels]
            opened.record("lungs", voxels, before)
            opened.set_review(z, Review.CORRECTED)
    events: list[Event] = []
    proposed = napari_covseg.finetune(
        workspace, [case_id], str(tmp_path / "mine.safetensors"),
        minutes=0.01, device="cpu", progress=events.append,
    )  # fmt: skip
    assert proposed is not None and proposed in events
    assert [version.id for version in WorkspaceModels(workspace).list()] == [proposed.model_id]


def test_names_are_there_and_torch_waits_until_one_is_used() -> None:
    assert set(napari_covseg.__all__) <= set(dir(napari_covseg))
    for name in napari_covseg.__all__:
        assert getattr(napari_covseg, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'predict_all'"):
        napari_covseg.predict_all  # noqa: B018
    code = "import sys, napari_covseg; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
