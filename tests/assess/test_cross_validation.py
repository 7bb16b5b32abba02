"""Folds are trained, tested and kept; what is kept is not made again, and nobody does the same twice."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_covseg.assess import cross_validation as fold_run
from napari_covseg.assess.comparison import read_networks, read_record
from napari_covseg.assess.cross_validation import FoldJob, run_folds
from napari_covseg.assess.folds import make_folds
from napari_covseg.cases.lock import Lock
from napari_covseg.errors import JobError
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.card import read_card
from napari_covseg.networks.size import count


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def jobs(tiny_recipe: Recipe, divided: LabelledSlices, tmp_path: Path) -> list[FoldJob]:
    return [
        FoldJob(tiny_recipe, "patient", fold, ("1", "2"), tmp_path / "runs", tmp_path / "weights")
        for fold in make_folds(divided)
    ]


def test_a_fold_is_trained_tested_and_kept(jobs: list[FoldJob], tiny_recipe: Recipe, tmp_path: Path) -> None:
    *progress, done = run_folds(jobs[1:])
    assert [one.progress.step for one in progress if one.progress] == [1, 2, 3, 4]
    path = tmp_path / "runs/patient/tiny/fold2.json"
    record = read_record(path)
    assert done.record == record
    assert [row["patient"] for row in record["rows"]] == ["bert", "cleo"]
    assert all(row["slices"] == 3 == len(row["lesion"]["by_slice"]) for row in record["rows"])
    assert (record["steps"], record["size"], record["grid"], record["device"]) == (4, 16, 32, "cpu")
    assert record["split"]["training"] == {"patients": ["dora"], "slices": 3}
    assert record["split"]["validation"]["patients"] == ["anna"]
    assert set(record["thresholds"]) == {"lungs", "lesion"}
    parameters, gmac = count("unet", tiny_recipe.settings)
    assert (record["parameters"], record["gmac_256"]) == (parameters, round(gmac, 3))
    assert "NaN" not in path.read_text()
    weights = tmp_path / "weights/patient/tiny"
    assert {file.name for file in weights.iterdir()} == {"fold2.safetensors", "fold2.lock"}
    card = read_card(weights / "fold2.safetensors")
    assert card.split["test"] == ["bert", "cleo"]
    assert card.id == "tiny-patient-fold2"


def test_what_is_done_is_not_done_again(
    jobs: list[FoldJob], tiny_recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = [one.record for one in run_folds(jobs[:1])][-1]
    monkeypatch.setattr(fold_run, "train_model", None)
    (again,) = run_folds(jobs[:1])
    assert again.record == first
    other = replace(jobs[0], recipe=replace(tiny_recipe, seed=1))
    with pytest.raises(JobError, match=r"fold1\.json was made with other settings"):
        list(run_folds([other]))
    told = run_folds([jobs[1], replace(jobs[0], budget=60.0)])
    with pytest.raises(JobError, match="other settings"):  # before anything is trained
        next(told)
    with pytest.raises(JobError, match="other slices"):
        list(run_folds([replace(jobs[0], fold=replace(jobs[0].fold, checksum="0"))]))
    # words of a recipe may change, and settings that did not exist then had their default
    stored = json.loads(jobs[0].record.read_text())
    del stored["asked"]["recipe"]["min_rate"]
    jobs[0].record.write_text(json.dumps(stored))
    assert len(list(run_folds([replace(jobs[0], recipe=replace(tiny_recipe, notes="Nothing new."))]))) == 1


def test_an_interrupted_fold_goes_on(jobs: list[FoldJob], tmp_path: Path) -> None:
    whole = [one.record for one in run_folds(jobs[:1])][-1]
    assert whole is not None
    elsewhere = replace(jobs[0], runs=tmp_path / "other", weights=tmp_path / "other-weights")
    running = run_folds([elsewhere])
    while (told := next(running)).progress is None or told.progress.step < 2:
        pass
    running.close()
    assert not elsewhere.record.exists()
    *progress, done = run_folds([elsewhere])
    assert [one.progress.step for one in progress if one.progress] == [3, 4]
    assert done.record is not None
    assert done.record["rows"] == whole["rows"]
    assert done.record["thresholds"] == whole["thresholds"]


def test_a_fold_that_another_process_is_at_is_left_to_it(jobs: list[FoldJob], tmp_path: Path) -> None:
    path = tmp_path / "weights/patient/tiny/fold1.lock"
    path.parent.mkdir(parents=True)
    lock = Lock(path, "the fold")
    told = list(run_folds(jobs))
    assert told[0].busy and told[0].job is jobs[0]
    assert told[-1].record is not None
    assert told[-1].job is jobs[1]
    assert not jobs[0].record.exists()
    lock.release()


def test_split_by_slice(tiny_recipe: Recipe, divided: LabelledSlices, tmp_path: Path) -> None:
    fold = make_folds(divided, "slice")[0]
    places = tmp_path / "runs", tmp_path / "weights"
    *_, done = run_folds([FoldJob(tiny_recipe, "slice", fold, ("1",), *places)])
    assert done.record is not None
    assert (tmp_path / "runs/slice/tiny/fold1.json").is_file()
    parts = [set(done.record["split"][part]["patients"]) for part in ("training", "test")]
    assert parts[0] & parts[1]
    assert {row["patient"] for row in done.record["rows"]} == parts[1] <= {"anna", "bert", "cleo", "dora"}
    assert sum(row["slices"] for row in done.record["rows"]) == done.record["split"]["test"]["slices"]


def test_findings_that_are_told_apart_and_only_partly_known(
    tiny_recipe: Recipe, divided: LabelledSlices, tmp_path: Path
) -> None:
    outputs = ("ground-glass", "consolidation")
    masks = np.repeat(divided.masks[:, 1:].astype(np.uint8), 3, 1)
    masks[:3, :2] = UNKNOWN  # of anna only the union is known
    masks[3:9, 1] = 0  # bert and cleo have no consolidation
    data = replace(divided, masks=masks, outputs=(*outputs, "lesion"))
    recipe = replace(tiny_recipe, outputs=outputs, threshold="scan")
    first, second = (
        FoldJob(recipe, "patient", fold, ("1", "2"), tmp_path / "runs", tmp_path / "weights")
        for fold in make_folds(data)
    )
    *_, done = run_folds([first, second])
    (row,) = read_record(first.record)["rows"]
    assert (row["patient"], row["ground-glass"], row["consolidation"]) == ("anna", None, None)
    assert len(row["lesion"]["by_slice"]) == 3
    assert done.record is not None
    assert (
        done.record["outputs"]
        == ["ground-glass", "consolidation", "lesion"]
        == list(done.record["thresholds"])
    )
    assert [one["ground-glass"]["dice"] is None for one in done.record["rows"]] == [False, False]
    assert [one["consolidation"]["dice"] for one in done.record["rows"]] == [None, None]
    (network,) = read_networks(tmp_path / "runs")
    assert list(network.by_patient("ground-glass", "dice")) == ["bert", "cleo"]
    assert list(network.painted("consolidation")) == ["bert", "cleo"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 1}', '{"format": 2, "rows": []}'])
def test_damaged_runs(text: str, jobs: list[FoldJob]) -> None:
    jobs[0].record.parent.mkdir(parents=True)
    jobs[0].record.write_text(text)
    with pytest.raises(JobError, match=r"fold1\.json (cannot be read|is no run that is known)"):
        list(run_folds(jobs[:1]))
