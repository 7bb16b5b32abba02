"""Brush, tools and keys on a real canvas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from canvas_mouse import Mouse, wait_until_drawn
from napari import Viewer
from qtpy.QtCore import Qt

from napari_covseg.cases.case import Review, Touch
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.edit.hu_range import HuRange
from napari_covseg.panels.correct.correct_step import CorrectStep
from napari_covseg.panels.correct.correction import RANGE_LAYER
from napari_covseg.panels.correct.tools import TOOLS, ends
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.scans import Scan

FINDING = (slice(3, 9), slice(50, 62), slice(22, 34))  # of 0 HU in the scan of the tests
Z = 5


@pytest.fixture
def dock(dock: CovSegDock) -> CovSegDock:
    dock.session.viewer.dims.set_current_step(0, Z)
    dock.sections[3].toggleButton().click()
    return dock


def at(dock: CovSegDock, mouse: Mouse, y: int, x: int) -> Any:
    image = dock.session.scan_image()
    return mouse.at(tuple(image.data_to_world((dock.session.slice_on_screen, y, x))))


def test_the_brush_keeps_to_its_range(dock: CovSegDock, case: OpenCase, mouse: Mouse) -> None:
    step = dock.correct
    step.limited.click()
    assert RANGE_LAYER in mouse.viewer.layers
    step.correction.set_range(True, HuRange(-100, 20))
    overlay = mouse.viewer.layers[RANGE_LAYER]
    assert tuple(overlay.contrast_limits) == (-100.5, 20.5)
    step.labels.buttons[3].click()
    step.size.setValue(30)
    step.paint.click()
    mouse.drag([at(dock, mouse, 52, 18), at(dock, mouse, 60, 38)])
    painted = case.live["lesions"] == 3
    assert painted.any() and (case.voxels[painted] == 0).all()
    assert case.touched["lesions"][painted].all() and case.review[Z] == Review.CORRECTED
    assert not painted[np.arange(12) != Z].any()
    step.limited.click()
    assert RANGE_LAYER not in mouse.viewer.layers
    mouse.drag([at(dock, mouse, 30, 20), at(dock, mouse, 30, 30)])
    assert (case.voxels[case.live["lesions"] == 3] == -850).any()


def test_grow_and_relabel_are_steps_to_undo(dock: CovSegDock, case: OpenCase, mouse: Mouse) -> None:
    dock.correct.labels.buttons[3].click()
    mouse.press_key("G")
    assert dock.correct.tools["grow"].isChecked()
    mouse.drag([at(dock, mouse, 56, 28), at(dock, mouse, 56, 28)])
    grown = case.live["lesions"][Z].copy()
    assert (grown[52:60, 24:32] == 3).all() and not (grown[case.voxels[Z] != 0] > 0).any()
    mouse.press_key("W")
    assert not dock.correct.tools["grow"].isChecked()
    mouse.drag([at(dock, mouse, 56, 28), at(dock, mouse, 56, 28)])
    assert set(np.unique(case.live["lesions"][Z])) == {0, 4}
    lesions = dock.session.layers.labels["lesions"]
    lesions.undo()
    assert np.array_equal(case.live["lesions"][Z], grown)
    lesions.undo()
    assert not case.live["lesions"].any()


def test_fill_between_two_corrected_slices(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, qtbot: Any
) -> None:
    lesions = dock.session.layers.labels["lesions"]
    lesions.brush_size = 10
    for z in (3, 8):
        lesions.paint((z, 56, 28), 2)
    dock.correct.tools["fill between"].click()
    qtbot.waitUntil(lambda: case.live["lesions"][4:8].any())
    assert (case.live["lesions"][3:9, 56, 28] == 2).all()
    states = [Review.CORRECTED, *[Review.SPREAD] * 4, Review.CORRECTED]
    assert case.review[3:9].tolist() == states and (case.touched["lesions"][4:8] != Touch.PERSON).all()
    assert "2 slices of this case" in dock.learn.status.text()
    assert "4 slices were spread by a tool" in dock.export.hint.text()
    lesions.undo()
    assert not case.live["lesions"][4:8].any() and case.live["lesions"][3].any()
    assert not case.review[4:8].any() and not case.touched["lesions"][4:8].any()
    lesions.undo()
    assert case.review[3] == Review.CORRECTED and not case.review[8]
    lesions.redo()
    assert case.review[8] == Review.CORRECTED


def test_a_tool_over_the_volume_corrects_no_slice(dock: CovSegDock, case: OpenCase, qtbot: Any) -> None:
    case.live["lesions"][FINDING] = 2
    case.live["lesions"][3:9, 70:75, 30] = 2  # a smaller part
    dock.session.layers.labels["lesions"].selected_label = 2
    dock.correct.volume.click()
    before = case.revision
    dock.correct.tools["keep largest"].click()
    qtbot.waitUntil(lambda: case.revision > before)
    assert (case.review[3:9] == Review.SPREAD).all() and (case.touched["lesions"] != Touch.PERSON).all()
    qtbot.waitUntil(lambda: "6&nbsp;spread" in dock.correct.review.counts.text())
    assert "Correct or accept" in dock.learn.status.text()
    dock.correct.review.accept.click()
    assert case.review[Z] == Review.ACCEPTED and "1 slice of this case" in dock.learn.status.text()
    lesions = dock.session.layers.labels["lesions"]
    lesions.paint((4, 56, 28), 3)
    assert case.review[4] == Review.SPREAD  # a brush in 3-D paints what is not on screen


def test_ends_of_a_gap() -> None:
    assert ends(5, (2, 9)) == (2, 9)
    assert ends(9, (2, 9)) == (2, 9)
    assert ends(2, (1, 2, 9)) == (2, 9)
    with pytest.raises(Exception, match="either side"):
        ends(5, (2,))


@pytest.mark.parametrize("view", ["coronal", "3-D"])
def test_what_is_done_to_a_slice_is_done_to_one_on_screen(
    dock: CovSegDock, case: OpenCase, notified: list[str], view: str
) -> None:
    dims, lesions = dock.session.viewer.dims, dock.session.layers.labels["lesions"]
    middle = len(case.review) // 2
    case.live["lesions"][middle, 20, 20] = case.live["lesions"][FINDING] = 2
    lesions.selected_label = 2
    if view == "3-D":
        dims.ndisplay = 3
    else:
        dims.order = (1, 0, 2)
    before = case.revision
    presses = (dock.correct.review.accept, dock.correct.tools["remove islands"], dock.correct.refine)
    for count, press in enumerate(presses, 1):
        press.click()
        assert len(notified) == count and "No axial slice is on screen" in notified[-1]
    assert case.revision == before and not case.review.any()
    dock.correct.review.strip.chosen.emit(4)
    assert dims.ndisplay == 2 and 0 not in dims.displayed and dock.session.slice_on_screen == 4
    dock.correct.review.accept.click()
    assert case.review[4] == Review.ACCEPTED


def test_locked_labels_and_accepted_slices_stay(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, notified: list[str]
) -> None:
    lesions = dock.session.layers.labels["lesions"]
    dock.workbench.reviewing.stay = True
    lesions.brush_size = 14
    lesions.paint((Z, 56, 28), 3)
    before = case.live["lesions"].copy()
    dock.correct.labels.locks[3].click()
    lesions.paint((Z, 56, 30), 2)
    assert (case.live["lesions"][before == 3] == 3).all() and (case.live["lesions"] == 2).any()
    before = case.live["lesions"].copy()
    mouse.press_key("A")
    assert case.review[Z] == Review.ACCEPTED and not notified
    lesions.paint((Z, 56, 30), 2)
    assert notified == ["Slice 6 is accepted, so nothing changes it: R opens the one on screen."]
    lesions.paint((Z, 56, 30), 0)
    assert len(notified) == 1  # not for each stroke
    dock.correct.labels.buttons[2].click()
    for known in TOOLS:
        if not known.click and known.name not in ("fill between", "copy to next"):  # which change others
            dock.correct.tools[known.name].click()
    assert np.array_equal(case.live["lesions"], before)
    assert not any("accepted slices" in told for told in notified)  # the key is said, not that there are some
    mouse.press_key("R")
    assert case.review[Z] == Review.CORRECTED
    lesions.paint((Z, 56, 30), 0)
    assert (case.live["lesions"] == 3).sum() == (before == 3).sum() and not (case.live["lesions"] == 2).all()


def test_keys_work_only_while_a_case_is_open(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, qtbot: Any
) -> None:
    viewer, session = mouse.viewer, dock.session
    lesions = session.layers.labels["lesions"]
    viewer.layers.selection.active = lesions
    for value in "1324":
        mouse.press_key(value)
        assert lesions.selected_label == int(value)
    lesions.mode = "paint"
    size = lesions.brush_size
    mouse.press_key("]")
    assert lesions.brush_size > size
    mouse.press_key("[")
    assert lesions.brush_size == size
    qtbot.keyPress(mouse.canvas, Qt.Key.Key_H)
    assert not lesions.visible
    qtbot.keyRelease(mouse.canvas, Qt.Key.Key_H)
    assert lesions.visible
    mouse.press_key("Q")
    assert dock.correct.limited.isChecked()
    mouse.press_key("Y")
    assert lesions.n_edit_dimensions == 3
    dock.workbench.opening.close()
    assert not viewer.keymap
    assert RANGE_LAYER not in viewer.layers


def test_the_keys_of_brush_and_eraser_work_whatever_is_selected(
    dock: CovSegDock, case: OpenCase, mouse: Mouse
) -> None:
    viewer, layers = mouse.viewer, dock.session.layers
    viewer.layers.selection.active = layers.scan
    mouse.press_key("P")
    assert viewer.layers.selection.active is layers.labels["lesions"] and dock.correct.paint.isChecked()
    mouse.press_key("E")
    assert dock.correct.erase.isChecked() and str(layers.labels["lesions"].mode) == "erase"
    viewer.layers.selection.active = layers.labels["lungs"]
    mouse.press_key("P")
    assert str(layers.labels["lungs"].mode) == "paint"


@pytest.mark.parametrize("how", ["key", "mode", "layer"])
@pytest.mark.parametrize("tool", ["G", "M"])
def test_one_drag_does_one_thing(dock: CovSegDock, case: OpenCase, mouse: Mouse, how: str, tool: str) -> None:
    labels = dock.session.layers.labels
    labels["lungs"].mode = "paint"
    mouse.viewer.layers.selection.active = labels["lesions"]
    mouse.press_key(tool)
    assert dock.correct.tools["grow"].isChecked() or dock.correct.measure.isChecked()
    if how == "key":
        mouse.press_key("P")
    elif how == "mode":
        labels["lesions"].mode = "erase"
    else:
        mouse.viewer.layers.selection.active = labels["lungs"]
    assert not dock.correct.tools["grow"].isChecked() and not dock.correct.measure.isChecked()
    assert not dock.workbench.correction.clicking and not dock.workbench.measuring.active
    mouse.press_key(tool)  # and the other way round
    assert str(dock.workbench.correction.layer.mode) == "pan_zoom"
    assert dock.workbench.correction.clicking or dock.workbench.measuring.active


def test_volume_tools_run_beside_the_viewer_and_can_be_cancelled(
    dock: CovSegDock, case: OpenCase, qtbot: Any, notified: list[str]
) -> None:
    case.live["lesions"][FINDING] = 2
    case.live["lesions"][2, 20, 20] = 2
    dock.correct.volume.click()
    dock.correct.labels.buttons[2].click()
    correction = dock.workbench.correction
    dock.correct.tools["remove islands"].click()
    assert correction.running and dock.correct.progress.isVisible()
    dock.correct.progress.cancel.click()
    qtbot.waitUntil(lambda: not correction.running)
    assert case.live["lesions"][2, 20, 20] == 2 and not notified
    dock.correct.tools["keep largest"].click()
    qtbot.waitUntil(lambda: not correction.running)
    assert not case.live["lesions"][2].any() and (case.live["lesions"][FINDING] == 2).all()
    assert not dock.correct.progress.isVisible()


def test_a_distance_and_a_finding_are_measured(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, qtbot: Any
) -> None:
    case.live["lesions"][FINDING] = 2
    mouse.press_key("M")
    step = dock.correct
    assert step.measure.isChecked()
    mouse.drag([at(dock, mouse, 20, 20), at(dock, mouse, 20, 40)])
    length = float(step.measured.text().removesuffix(" mm"))
    assert abs(length - 60) < 4  # 20 voxels of 3 mm, as exactly as the mouse hits them
    where = at(dock, mouse, 56, 28)
    qtbot.mouseClick(mouse.canvas, Qt.MouseButton.LeftButton, pos=where)
    # 12 x 12 voxels of 3 x 3 x 10 mm, on six slices
    both = "On this slice: 0 ± 0 HU, 12.96 cm², 12.96 ml\nAll of it: 0 ± 0 HU, 77.76 ml"
    qtbot.waitUntil(lambda: step.measured.text() == both)
    mouse.press_key("M")
    assert not step.measured.text() and "Ruler" not in mouse.viewer.layers
    mouse.press_key("M")
    mouse.press_key("Escape")
    assert not step.measure.isChecked() and not dock.workbench.measuring.active


def test_nothing_to_do_is_said(dock: CovSegDock, case: OpenCase, qtbot: Any, notified: list[str]) -> None:
    case.live["lesions"][FINDING] = 2
    before, revision = case.live["lesions"].copy(), case.revision
    dock.correct.tools["fill holes"].click()
    qtbot.waitUntil(lambda: any("nothing to change" in told for told in notified))
    assert np.array_equal(case.live["lesions"], before) and case.revision == revision


def test_the_step_is_a_widget_of_its_own(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, step = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg: Correct")
    assert isinstance(step, CorrectStep)
    assert not step.tools["grow"].isEnabled()


def test_a_case_that_somebody_else_has_is_open_to_look_at(
    workbench: tuple[Viewer, CovSegDock], scan: Scan, qtbot: Any, notified: list[str]
) -> None:
    dock = workbench[1]
    workspace = dock.session.workspace
    with OpenCase(workspace, workspace.add_case(scan)) as other:
        dock.workbench.opening.case(other.id)
        qtbot.waitUntil(lambda: dock.session.case is not None, timeout=60_000)
        qtbot.waitUntil(lambda: any("to look at" in told for told in notified))
        assert not dock.session.can_edit and not dock.correct.paint.isEnabled()
        assert not dock.session.layers.labels["lesions"].editable
        dock.workbench.reviewing.accept()
        dock.workbench.correction.use("smooth")
        assert not dock.session.case.review.any()
        dock.workbench.opening.close()


def test_a_case_can_be_closed_with_the_brush_in_the_hand(
    dock: CovSegDock, case: OpenCase, mouse: Mouse, qtbot: Any
) -> None:
    visuals = mouse.viewer.window._qt_viewer.canvas._viewer_overlay_to_visual.values()
    for y in (30, 40):
        layer = dock.session.layers.labels["lesions"]
        dock.correct.paint.click()
        mouse.drag([at(dock, mouse, y, 20), at(dock, mouse, y, 30)])
        dock.workbench.opening.close()
        # one thing alone in an empty viewer, and software OpenGL crashes
        assert not [one for shown in visuals for one in shown if one.node.visible or one.box.parent]
        wait_until_drawn(mouse.viewer, qtbot)  # without the brush
        assert str(layer.mode) == "pan_zoom"
        dock.workbench.opening.case(case.id)
        qtbot.waitUntil(lambda: dock.session.case is not None, timeout=60_000)
    assert (dock.session.case.live["lesions"] == 2).any()
