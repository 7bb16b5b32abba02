"""A check finds what is damaged, wherever it is, and nothing else, and changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from painting import paint

from napari_covseg.cases.case import Review
from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.store import FORMAT, create_record, create_slices, write_record, write_slice
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError


@pytest.fixture
def full(workspace: Workspace, case_id: str) -> Workspace:
    """A workspace with all that there can be: strokes of two sessions, a run, a model."""
    for session in range(2):
        with OpenCase(workspace, case_id) as opened:
            for z in range(3):
                index = np.full(4, z), np.arange(4), np.full(4, session)
                opened.live["lesions"][index] = 2
                opened.record("lesions", index, 0)
            opened.set_review(4, Review.ACCEPTED if session else Review.CORRECTED)
    case = workspace.case(case_id)
    run = case.begin_prediction("m", {}, ["lesion"], 0, probabilities=True, uncertainty=True)
    ones = np.ones(case.shape[1:], np.uint8)
    for z in range(case.shape[0]):
        run.write_slice(z, ones, ones, ones[None], uncertainty=ones)
    run.finish()
    said = case.begin_recognition("m", "recognition", ["COVID-19", "normal"], {}, 0, (4, 3))
    for z in range(case.shape[0]):
        said.write_slice(z, (0.25, 0.75), np.full((2, 4, 3), z, np.uint8))
    said.finish((0.25, 0.75))
    with OpenCase(workspace, case_id) as opened:
        opened.merge_slices(run.id, range(6))
    model = zarr.open_group(Path(workspace.path, "models/learned"), mode="w")
    write_record(create_record(model, "weights", (100,), np.uint8, ("byte",)), np.ones(100, np.uint8), "it")
    write_slice(create_slices(model.create_group("curves"), "loss", (1, 4, 4), np.uint8), 0, np.ones((4, 4)))
    return workspace


def files(workspace: Workspace) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Path(workspace.path).rglob("*") if path.is_file()}


def test_all_is_well(full: Workspace) -> None:
    before, told = files(full), []
    assert check_workspace(full.path, lambda done, total: told.append((done, total))) == []
    assert files(full) == before
    assert told == [(0, 2), (1, 2)]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 8
    path.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped", "empty", "missing"])
@pytest.mark.parametrize(
    "pattern",
    [
        "cases/*/0/c.2.0.0",
        "cases/*/labels/lesions/0/c.1.0.0",
        "cases/*/labels/lesions/touched/c.1.0.0",
        "cases/*/review/c.0",
        "cases/*/activity/c.0",
        "cases/*/history/sessions/c.4.0",
        "cases/*/predictions/*/lesions/c.1.0.0",
        "cases/*/predictions/*/probabilities/c.0.1.0.0",
        "cases/*/predictions/*/uncertainty/c.1.0.0",
        "cases/*/predictions/*/done/c.1.0.0",
        "cases/*/recognitions/*/probabilities/c.1.0.0",
        "models/learned/weights/c.0",
        "models/learned/curves/loss/c.0.0.0",
        "models/learned/curves/zarr.json",
        "cases/*/zarr.json",
        "cases/*/labels/lungs/0/zarr.json",
        "cases/*/predictions/*/zarr.json",
    ],
)
def test_damage_is_found_and_placed(full: Workspace, pattern: str, damage: str) -> None:
    (path,) = Path(full.path).glob(pattern)
    if damage == "missing":
        path.unlink()
    elif damage == "empty":
        path.write_bytes(b"")
    elif path.name == "zarr.json":
        path.write_text(path.read_text()[:-20])
    else:
        flip(path)
    found = check_workspace(full.path)
    harmless = damage == "missing" and "labels" in pattern and "/c." in pattern  # as if never written
    if not (harmless or (damage == "missing" and "curves/zarr.json" in pattern)):
        assert [one.level for one in found if one.level == "damaged"]
    for one in found:
        parts = pattern.split("/")
        assert full.path in one.path
        assert parts[0] in one.path
        text = str(one)
        assert "\n" not in text and text.endswith(".") and one.advice


def test_a_torn_revision_is_a_finding_and_the_rest_is_not(workspace: Workspace, case_id: str) -> None:
    opened = OpenCase(workspace, case_id)
    for z in range(3):
        paint(opened, "lungs", np.s_[z, 1], 1)
    opened.flush()
    opened.log.history.compact = lambda: None  # type: ignore[method-assign]
    opened.close()
    assert check_workspace(workspace.path) == []
    path = Path(workspace.case(case_id).path, "history/revisions/c.2.0")
    path.write_bytes(path.read_bytes()[:50])
    (found,) = check_workspace(workspace.path)
    assert (found.level, found.what) == ("damaged", "revision 2 is missing or damaged")


def test_labels_that_no_revision_explains(full: Workspace, case_id: str) -> None:
    case = full.case(case_id)
    labels = case.labels("lesions")
    write_slice(labels, 1, np.full(case.shape[1:], 4, np.uint8))
    (found,) = check_workspace(full.path)
    assert "did not leave the labels" in found.what


def test_what_is_only_worth_knowing_is_no_damage(full: Workspace, case_id: str) -> None:
    Path(full.path, "incoming").mkdir()
    Path(full.path, "incoming", "half").mkdir()
    Path(full.case(case_id).path, "labels/lungs/0/c.0.0.0.damaged").write_bytes(b"")
    with OpenCase(full, case_id):
        found = check_workspace(full.path)
    assert [one.level for one in found] == ["note"] * 3
    assert "it is open by" in found[0].what


def test_a_newer_format_is_said_and_the_others_are_looked_at(full: Workspace, scan_maker: Any) -> None:
    other = full.add_case(scan_maker(seed=1))
    path = Path(full.path, "cases", other, "zarr.json")
    values = json.loads(path.read_text())
    values["attributes"]["covseg"]["format"] = FORMAT + 1
    path.write_text(json.dumps(values))
    (found,) = check_workspace(full.path)
    assert other in found.path and "newer" in found.what


def test_no_workspace_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="is no workspace"):
        check_workspace(tmp_path)
