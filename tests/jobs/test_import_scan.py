from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from tiny_model import tiny_scan

from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import ScanError
from napari_covseg.jobs import import_scan
from napari_covseg.jobs.events import Finished, Imported, Notice, Progress
from napari_covseg.jobs.requests import Import
from napari_covseg.jobs.run import run


@pytest.fixture
def scan_file(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    voxels = tiny_scan().voxels
    nib.save(nib.Nifti1Image(voxels.transpose(2, 1, 0), np.diag([-1.5, -1.5, 5.0, 1.0])), path)
    return path


def test_a_file_becomes_a_case(workspace: Workspace, scan_file: Path) -> None:
    events = list(run(Import(workspace.path, str(scan_file))))
    assert isinstance(events[-2], Imported) and events[-1] == Finished()
    case = workspace.case(events[-2].case_id)
    assert (case.read_voxels() == tiny_scan().voxels).all()
    last = [event for event in events if isinstance(event, Progress)][-1]
    assert (last.done, last.total) == (7, 7)


def test_notes_are_told(workspace: Workspace, monkeypatch) -> None:
    monkeypatch.setattr(import_scan, "read_scan", lambda path, series, values: tiny_scan())
    assert Notice("made up") in list(run(Import(workspace.path, "scan")))


def test_a_cancelled_import_leaves_no_case(workspace: Workspace, monkeypatch) -> None:
    import threading

    reading, go_on, threads = threading.Event(), threading.Event(), []

    def slow(path: str, series: str | None, values: str | None) -> object:
        threads.append(threading.current_thread())
        reading.set()
        go_on.wait()
        return tiny_scan()

    monkeypatch.setattr(import_scan, "read_scan", slow)
    steps = run(Import(workspace.path, "scan"))
    next(steps)
    assert reading.is_set()
    steps.close()
    go_on.set()
    threads[0].join()
    assert workspace.cases() == []


def test_a_path_that_does_not_exist_is_a_users_error(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(ScanError, match="does not exist"):
        list(run(Import(workspace.path, str(tmp_path / "nothing"))))


def test_a_scan_that_is_a_case_already_is_offered(workspace: Workspace, scan_file: Path) -> None:
    (first,) = imported(workspace, scan_file)
    copy = scan_file.with_name("copy.nii.gz")
    copy.write_bytes(scan_file.read_bytes())
    assert imported(workspace, copy, anew=False) == [Imported(first.case_id, known=True)]
    assert len(workspace.cases()) == 1
    (second,) = imported(workspace, copy)
    assert not second.known and len(workspace.cases()) == 2

    # what the images are called decides where each has a name
    scan = replace(tiny_scan(), sop_uids=tuple(f"1.2.{z}" for z in range(7)))
    named = workspace.add_case(scan)
    assert workspace.find_case(scan) == named
    assert workspace.find_case(replace(scan, voxels=scan.voxels + 1)) == named
    assert workspace.find_case(replace(scan, sop_uids=tuple(f"1.3.{z}" for z in range(7)))) is None
    assert workspace.find_case(replace(scan, voxels=scan.voxels[1:])) is None
    other = replace(tiny_scan(), voxels=tiny_scan().voxels + 1)
    assert workspace.find_case(other) is None


def imported(workspace: Workspace, path: Path, *, anew: bool = True) -> list[Imported]:
    return [
        event for event in run(Import(workspace.path, str(path), anew=anew)) if isinstance(event, Imported)
    ]
