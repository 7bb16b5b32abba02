"""One scan from the menu to a file, as a person would do it, with a real window and real mouse events."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from canvas_mouse import Mouse
from napari import Viewer

import napari_covseg._sample_data as sample_data
from napari_covseg.cases import Review, Workspace
from napari_covseg.panels import CovSegDock
from napari_covseg.panels.layers import WINDOWS

LONG = 170_000  # ms; the child has to load torch first


def wait_until_ready(qtbot: Any, dock: CovSegDock) -> None:
    qtbot.waitUntil(lambda: dock.session.busy_with == "", timeout=LONG)


def choose(menu: Any, *texts: str) -> None:
    """Click through a menu by the beginnings of its texts."""
    menu.aboutToShow.emit()
    (action,) = [a for a in menu.actions() if a.text().startswith(texts[0])]
    if len(texts) > 1:
        choose(action.menu(), *texts[1:])
    else:
        action.trigger()


def open_phantom(qtbot: Any, viewer: Viewer, dock: CovSegDock) -> None:
    choose(viewer.window.file_menu, "Open Sample", "Phantom chest CT")
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    wait_until_ready(qtbot, dock)


def test_scan_to_file(
    workbench: tuple[Viewer, CovSegDock],
    mouse: Mouse,
    qtbot: Any,
    tmp_path: Path,
    workspace_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sample_data, "SHAPE", (40, 128, 128))
    monkeypatch.setattr(sample_data, "SPACING", (8.0, 2.8, 2.8))
    viewer, dock = workbench
    session = dock.session
    torch_was_there = "torch" in sys.modules  # by another test

    open_phantom(qtbot, viewer, dock)
    assert [layer.name for layer in viewer.layers][1:] == ["Lungs", "Lesions"]
    assert session.slice_on_screen in (19, 20)
    case = session.case
    assert case is not None

    # the first slices are those around the one on screen, after the reader has gone elsewhere too
    viewer.dims.set_current_step(0, 28)
    dock.segment.device.setCurrentIndex(dock.segment.device.findData("cpu"))
    seen: list[int] = []

    def see() -> None:
        seen.extend(z for z in done(case) if z not in seen)
        if len(seen) >= 3:
            dock.segment.progress.cancel.click()

    session.labels_changed.connect(see)
    dock.segment.run.click()
    wait_until_ready(qtbot, dock)
    session.labels_changed.disconnect(see)
    assert set(seen[:3]) <= set(range(24, 33))

    # cancelled halfway: what was finished stays
    kept = done(case)
    assert kept and len(kept) < len(case.review)
    assert "not reviewed" in dock.segment.status.text()
    labels = session.layers.labels
    assert labels["lungs"].data[28].any()

    # again, to the end; the last pass in 3-D is one step that Ctrl+Z takes back
    dock.segment.run.click()
    wait_until_ready(qtbot, dock)
    assert len(done(case)) == len(case.review)

    # another window
    dock.scan.windows["Bone"].click()
    assert tuple(session.scan_image().contrast_limits) == WINDOWS["Bone"].limits
    assert dock.scan.window.text() == "L 400  W 1800"

    # paint with the mouse
    lesions = labels["lesions"]
    viewer.layers.selection.active = lesions
    before = lesions.data.copy()
    lesions.mode, lesions.selected_label, lesions.brush_size = "paint", 4, 5
    step = viewer.dims.point
    mouse.drag([mouse.at((step[0], 120, 150)), mouse.at((step[0], 120, 190))])
    painted = lesions.data != before
    assert painted[28].sum() > 50 and not painted[np.arange(40) != 28].any()
    assert (lesions.data[painted] == 4).all()
    assert case.touched["lesions"][painted].all()
    assert case.review[28] == Review.CORRECTED
    lesions.mode = "pan_zoom"

    # a prediction later it is still there
    dock.segment.run.click()
    wait_until_ready(qtbot, dock)
    assert (lesions.data[painted] == 4).all()
    assert "corrected" in dock.segment.status.text()

    dock.export.path.setText(str(tmp_path / "out" / "phantom"))
    (tmp_path / "out").mkdir()
    dock.export.save.click()
    wait_until_ready(qtbot, dock)
    exported = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / "phantom_lesions.nii.gz")))
    assert exported.shape == lesions.data.shape
    assert (exported == 4).sum() == (lesions.data == 4).sum() > 0
    assert (tmp_path / "out" / "phantom_lungs.nii.gz").exists()

    # closed, everything is on disk and anybody may open it
    live = lesions.data.copy()
    viewer.close()
    qtbot.waitUntil(lambda: session.case is None)
    stored = Workspace.open(workspace_folder).case(case.id)
    assert np.array_equal(stored.labels("lesions")[:], live)
    stored.lock().release()
    assert torch_was_there or "torch" not in sys.modules


def done(case: Any) -> list[int]:
    """Slices that have labels."""
    return np.flatnonzero(case.review != Review.UNTOUCHED).tolist()
