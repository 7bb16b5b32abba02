"""Workspaces, their lists of cases, and imports that do not end."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import fsspec
import numpy as np
import pytest
from painting import paint

from napari_covseg.cases.case import Review
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.store import FORMAT
from napari_covseg.cases.workspace import Workspace, default_workspace
from napari_covseg.errors import CaseError
from napari_covseg.scans.scan import Scan


def edit_json(path: Path, change: Callable[[Any], None]) -> None:
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def test_a_workspace_is_made_where_nothing_is(tmp_path: Path) -> None:
    made = Workspace.open(tmp_path / "a/b")
    assert made.path == str(tmp_path / "a/b")
    assert made.models_folder.is_dir()
    assert made.cases() == []
    assert Workspace.open(made.path, create=False).path == made.path


def test_the_default_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COVSEG_WORKSPACE", str(tmp_path / "mine"))
    assert Workspace.open().path == str(tmp_path / "mine")
    monkeypatch.delenv("COVSEG_WORKSPACE")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_workspace().name == "workspace.zarr"
    assert "napari-covseg" in str(default_workspace())


def test_a_workspace_that_is_missing_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match="is no workspace"):
        Workspace.open(tmp_path / "gone", create=False)
    assert not (tmp_path / "gone").exists()


def test_a_folder_of_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(CaseError, match="holds other files"):
        Workspace.open(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["letter.txt"]
    with pytest.raises(CaseError, match="is a file"):
        Workspace.open(tmp_path / "letter.txt")


def test_another_zarr_store_is_no_workspace(workspace: Workspace, case_id: str) -> None:
    with pytest.raises(CaseError, match="no napari-covseg workspace"):
        Workspace.open(Path(workspace.path, "cases"))
    with pytest.raises(CaseError, match="no napari-covseg workspace"):
        Workspace.open(workspace.case(case_id).path)


def test_a_workspace_that_was_half_made_is_finished(tmp_path: Path, scan: Scan) -> None:
    made = Workspace.open(tmp_path / "w")
    Path(made.path, "zarr.json").unlink()
    again = Workspace.open(made.path)
    assert again.cases() == []
    again.add_case(scan)


def test_many_may_begin_the_same_workspace_at_once(tmp_path: Path) -> None:
    for attempt in range(10):
        start = Barrier(4)

        def begin(path: Path = tmp_path / str(attempt), start: Barrier = start) -> Workspace:
            start.wait()
            return Workspace.open(path)

        with ThreadPoolExecutor(4) as pool:
            opened = [pool.submit(begin) for _ in range(4)]
            assert {one.result().path for one in opened} == {str(tmp_path / str(attempt))}


def test_a_scan_comes_back_as_it_was(workspace: Workspace, scan_maker: Any) -> None:
    for scan in (scan_maker(), scan_maker(intensity="grey")):
        case = workspace.case(workspace.add_case(scan))
        assert case.scan().header() == scan.header()
        assert np.array_equal(case.scan().voxels, scan.voxels)
        assert (case.shape, case.spacing) == (scan.voxels.shape, scan.spacing)
        assert case.intensity == scan.intensity and case.name.startswith(scan.name)
        assert np.array_equal(case.read_slice(3), scan.voxels[3])
        assert not case.review.any()


def test_progress_is_told_slice_by_slice(workspace: Workspace, scan: Scan) -> None:
    told: list[tuple[int, int]] = []
    workspace.add_case(scan, lambda done, total: told.append((done, total)))
    assert told == [(z, 6) for z in range(1, 7)]


def test_the_list_begins_with_what_was_used_last(workspace: Workspace, scan_maker: Any) -> None:
    first, second = (workspace.add_case(scan_maker(seed=seed)) for seed in range(2))
    assert [info.id for info in workspace.cases()] == [second, first]
    OpenCase(workspace, first).close()
    infos = workspace.cases()
    assert [info.id for info in infos] == [first, second]
    assert (infos[0].name, infos[0].shape, infos[0].patient_id) == (
        "Patient 7 / chest",
        (6, 32, 24),
        "P007",
    )
    with OpenCase(workspace, second) as opened:
        opened.set_review(0, Review.ACCEPTED)
    assert workspace.cases()[0].id == second


def test_looking_read_only_does_not_count_as_use(workspace: Workspace, scan_maker: Any) -> None:
    first, second = (workspace.add_case(scan_maker(seed=seed)) for seed in range(2))
    OpenCase(workspace, first, read_only=True).close()
    assert [info.id for info in workspace.cases()] == [second, first]


@pytest.mark.parametrize("wrong", ["nowhere", "", "..", "../models", "cases"])
def test_a_case_that_is_not_there(workspace: Workspace, case_id: str, wrong: str) -> None:
    with pytest.raises(CaseError, match="has no case"):
        workspace.case(wrong)


def test_a_cancelled_import_leaves_nothing(workspace: Workspace, scan: Scan) -> None:
    def cancel(done: int, total: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        workspace.add_case(scan, cancel)
    assert workspace.cases() == []
    assert sorted(path.name for path in Path(workspace.path).iterdir()) == ["cases", "models", "zarr.json"]


def test_leftovers_go_but_an_import_under_way_stays(workspace: Workspace, scan: Scan) -> None:
    incoming = Path(workspace.path, "incoming")
    for name in ("dead", "alive"):
        (incoming / name).mkdir(parents=True)
        (incoming / name / "zarr.json").write_text("{}")
    (incoming / "dead.lock").write_text("killed")
    alive = Lock(incoming / "alive.lock", "The import")
    workspace.add_case(scan)
    assert sorted(path.name for path in incoming.iterdir()) == ["alive", "alive.lock"]
    alive.release()


def test_a_newer_format_is_refused(workspace: Workspace, case_id: str) -> None:
    def newer(values: Any) -> None:
        values["attributes"]["covseg"]["format"] = FORMAT + 1

    prediction_id = workspace.case(case_id).begin_prediction("m", {}, [], 0, probabilities=False).id
    case = Path(workspace.case(case_id).path)
    edit_json(case / "predictions" / prediction_id / "zarr.json", newer)
    with pytest.raises(CaseError, match=r"newer napari-covseg \(format \d, .* update"):
        workspace.case(case_id).prediction(prediction_id)
    edit_json(case / "zarr.json", newer)
    with pytest.raises(CaseError, match=r"newer napari-covseg \(format \d, .* update"):
        OpenCase(workspace, case_id)
    edit_json(Path(workspace.path, "zarr.json"), newer)
    with pytest.raises(CaseError, match=r"newer napari-covseg \(format \d, .* update"):
        Workspace.open(workspace.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"zarr_format": 3, "node_type": "group"}'])
def test_a_damaged_case_does_not_hide_the_others(
    workspace: Workspace, scan_maker: Any, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    good, bad = (workspace.add_case(scan_maker(seed=seed)) for seed in range(2))
    Path(workspace.path, "cases", bad, "zarr.json").write_text(text)
    with caplog.at_level(logging.WARNING):
        assert [info.id for info in workspace.cases()] == [good]
    with pytest.raises(CaseError):
        workspace.case(bad)


def test_a_url_can_be_read_but_not_written(workspace: Workspace, scan: Scan, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lesions", np.s_[2, 3:6], 4)
    memory = fsspec.filesystem("memory")
    memory.put(workspace.path, "/covseg-test", recursive=True)
    try:
        far = Workspace.open("memory://covseg-test")
        assert [info.id for info in far.cases()] == [case_id]
        seen = OpenCase(far, case_id, read_only=True)
        assert np.array_equal(seen.voxels, scan.voxels)
        assert np.array_equal(seen.live["lesions"], opened.live["lesions"])
        assert seen.review.tolist() == [0, 0, 2, 0, 0, 0]
        for change in (lambda: OpenCase(far, case_id), lambda: far.add_case(scan)):
            with pytest.raises(CaseError, match=r"memory://.*can only be read"):
                change()
    finally:
        memory.rm("/covseg-test", recursive=True)


def test_a_case_is_renamed_deleted_and_taken_back(workspace: Workspace, scan: Scan) -> None:
    first, second = workspace.add_case(scan), workspace.add_case(scan)
    with OpenCase(workspace, first) as case:
        case.live["lesions"][1, 2, 3] = 2
        case.record("lesions", np.array([[1], [2], [3]]), np.zeros(1, np.uint8), "brush")
        case.rename("  P 7,\n after a week ")
        with pytest.raises(CaseError, match="needs a name"):
            case.rename(" ")
        with pytest.raises(CaseError, match="already open"):
            workspace.delete_case(first)
    assert {info.id: info.name for info in workspace.cases()}[first] == "P 7, after a week"
    workspace.delete_case(first)
    workspace.delete_case(second)
    assert workspace.cases() == [] and workspace.deleted == [second, first]
    workspace.undelete_case(first)
    assert [info.id for info in workspace.cases()] == [first] and workspace.deleted == [second]
    with OpenCase(workspace, first) as case:
        assert case.live["lesions"][1, 2, 3] == 2
    with pytest.raises(CaseError, match="no case"):
        workspace.undelete_case(first)
    with pytest.raises(CaseError, match="no case"):
        workspace.delete_case(second)


def test_cases_get_names_that_tell_them_apart(workspace: Workspace, scan: Scan) -> None:
    for path in ("P1/png", "P2/png", "P2/png", "", ""):
        workspace.add_case(replace(scan, name="png", path=path and str(Path("scans", path))))
    assert sorted(info.name for info in workspace.cases()) == [
        "P2 png",
        "png",
        "png (2)",
        "png (3)",
        "png (4)",
    ]
