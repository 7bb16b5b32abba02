from __future__ import annotations

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
