"""One scan from the menu to a file, as a person would do it, with a real window and real mouse events."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from canvas_mouse import Mouse, wait_until_drawn
from napari import Viewer
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest
from scipy.ndimage import binary_erosion

from napari_covseg.cases.case import Review
from napari_covseg.cases.workspace import Workspace
from napari_covseg.edit.hu_range import PRESETS, HuRange, in_range
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.layers import WINDOWS
from phantom import phantom

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
    small_sample: Callable[..., None],
) -> None:
    small_sample((24, 128, 128), (13.0, 2.8, 2.8))
    viewer, dock = workbench
    session = dock.session
    torch_was_there = "torch" in sys.modules  # by another test

    open_phantom(qtbot, viewer, dock)
    assert [layer.name for layer in viewer.layers][1:] == ["Lungs", "Lesions"]
    assert session.slice_on_screen in (11, 12)
    case = session.case
    assert case is not None

    # the first slices are those around the one on screen, after the reader has gone elsewhere too
    viewer.dims.set_current_step(0, 17)
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
    assert set(seen[:3]) <= set(range(13, 22))

    # cancelled halfway: what was finished stays
    kept = done(case)
    assert kept and len(kept) < len(case.review)
    assert "not reviewed" in dock.segment.status.text()
    labels = session.layers.labels
    assert labels["lungs"].data[17].any()

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
    assert painted[17].sum() > 50 and not painted[np.arange(24) != 17].any()
    assert (lesions.data[painted] == 4).all()
    assert case.touched["lesions"][painted].all()
    assert case.review[17] == Review.CORRECTED
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


@pytest.mark.timeout(900)
def test_correct_and_learn(
    workbench: tuple[Viewer, CovSegDock],
    mouse: Mouse,
    qtbot: Any,
    small_sample: Callable[..., None],
) -> None:
    small_sample((24, 128, 128), (13.0, 2.8, 2.8))
    viewer, dock = workbench
    session, correct, learn = dock.session, dock.correct, dock.learn
    open_phantom(qtbot, viewer, dock)
    case = session.case
    assert case is not None
    dock.segment.device.setCurrentIndex(dock.segment.device.findData("cpu"))
    dock.segment.model.choose("unet-lungs-lesion")  # it says "lesion", as the outlines below do
    dock.segment.run.click()
    wait_until_ready(qtbot, dock)
    for index in (3, 4, 5):
        dock.sections[index].toggleButton().click()
    lesions = session.layers.labels["lesions"]
    live, truth = case.live["lesions"], phantom(7, (24, 128, 128), (13.0, 2.8, 2.8)).lesions
    z = int(np.argmax((truth > 0).sum((1, 2))))

    def at(y: float, x: float) -> Any:
        return mouse.at(tuple(session.scan_image().data_to_world((session.slice_on_screen, y, x))))

    # three strokes, one taken back
    viewer.dims.set_current_step(0, z)
    viewer.layers.selection.active = lesions
    mouse.press_key("4")
    correct.size.setValue(14)
    correct.paint.click()
    for row in (20, 30, 40):
        before = live.copy()
        mouse.drag([at(row, 40), at(row, 60)])
        assert (live != before).any()
    QTest.keyClick(mouse.canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    assert np.array_equal(live, before)
    strokes = live == 4

    # a brush that keeps to a range of HU
    correct.correction.set_range(True, PRESETS["ground-glass"])
    mouse.press_key("2")
    inside = np.argwhere(in_range(case.voxels[z], PRESETS["ground-glass"]) & (case.live["lungs"][z] > 0))
    y, x = inside[len(inside) // 2]
    mouse.drag([at(y, x - 6), at(y, x + 6)])
    painted = (live == 2) & (before != 2)
    assert painted.any() and in_range(case.voxels[painted], PRESETS["ground-glass"]).all()
    mouse.press_key("Q")

    # grow, relabel, fill in between
    correct.correction.put_away()
    index = np.nonzero(live[z + 2])
    lesions.data_setitem((np.full(len(index[0]), z + 2), *index), 0)
    viewer.dims.set_current_step(0, z + 2)
    dense = np.argwhere(binary_erosion(truth[z + 2] > 1, iterations=2))
    mouse.press_key("3")
    correct.correction.set_range(True, HuRange(-900, 100))
    mouse.press_key("G")
    y, x = dense[len(dense) // 2]
    mouse.drag([at(y, x), at(y, x)])
    assert live[z + 2, y, x] == 3
    mouse.press_key("W")
    mouse.drag([at(y, x), at(y, x)])
    assert live[z + 2, y, x] == 4
    mouse.press_key("Q")
    mouse.press_key("I")
    qtbot.waitUntil(lambda: not correct.correction.running)
    assert case.touched["lesions"][z + 1].any()

    # a person's outlines on some slices; two are accepted
    shown = np.flatnonzero((truth > 0).any((1, 2)))
    for number in shown[:: max(1, len(shown) // 8)]:
        index = np.nonzero((truth[number] > 0) != (live[number] > 0))
        place = (np.full(len(index[0]), number), *index)
        session.layers.write("lesions", place, live[place], (truth[place] > 0).astype(np.uint8), "brush")
    for number in (z - 1, z + 3):
        viewer.dims.set_current_step(0, number)
        mouse.press_key("A")
    accepted = np.flatnonzero(case.review == Review.ACCEPTED)
    assert accepted.tolist() == [z - 1, z + 3]
    qtbot.waitUntil(lambda: dock.history.rows.rowCount() > 8)
    number, then = case.revision, live.copy()

    # learn: both curves move, three slices lie side by side, the new version is kept
    learn.minutes.setValue(30)  # stopped long before, but not by a clock
    learn.start.click()
    qtbot.waitUntil(lambda: len(learn.curves.dice.get("lesion", [])) > 1, timeout=4 * LONG)
    learn.cancel.click()
    qtbot.waitUntil(lambda: not dock.workbench.learning.running, timeout=LONG)
    losses, measured = learn.curves.loss, learn.curves.dice["lesion"]
    assert len(losses) > 5 and len({round(value, 4) for value in losses}) > 3
    assert len(measured) > 1 and len({round(value, 4) for _, value in measured}) > 1
    proposal = dock.workbench.learning.proposal
    assert proposal is not None and learn.proposal.isVisible()
    qtbot.waitUntil(lambda: all("→" in note.text() for note in learn.proposal.slices.notes), timeout=LONG)
    touched = case.touched["lesions"] > 0
    learn.proposal.keep.click()
    qtbot.waitUntil(lambda: session.busy_with != "", timeout=LONG)
    wait_until_ready(qtbot, dock)
    assert dock.workbench.learning.in_use == proposal.model_id
    assert np.array_equal(live[touched], then[touched])
    assert np.array_equal(live[accepted], then[accepted])
    assert not np.array_equal(live, then)  # what nobody reviewed is labelled anew

    # back to before, in labels and in the model
    dock.history._list()
    dock.history.choose(number)
    dock.history.restore.click()
    assert np.array_equal(live, then)
    learn.version.setCurrentIndex(0)
    learn.use.click()
    assert dock.workbench.learning.in_use == proposal.parent

    # closed and opened again: the same labels, states, history and models
    review, known = case.review.copy(), [r.number for r in case.history()]
    assert strokes[z].any()
    assert dock.workbench.opening.close() and len(viewer.layers) == 0
    wait_until_drawn(viewer, qtbot)
    dock.workbench.opening.case(case.id)
    qtbot.waitUntil(lambda: session.case is not None, timeout=LONG)
    wait_until_ready(qtbot, dock)
    again = session.case
    assert np.array_equal(again.live["lesions"], then)
    assert np.array_equal(again.review, review)
    assert [r.number for r in again.history()][: len(known)] == known
    assert [v.id for v in dock.workbench.learning.versions()] == [proposal.model_id]


def done(case: Any) -> list[int]:
    """Slices that have labels."""
    return np.flatnonzero(case.review != Review.UNTOUCHED).tolist()
