from __future__ import annotations

import numpy as np
import pytest
from canvas_mouse import Mouse
from qtpy.QtCore import QPoint, Qt

from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.mouse import set_window
from napari_covseg.panels.napari_private import camera


def test_wheel_goes_through_slices(dock: CovSegDock, mouse: Mouse) -> None:
    viewer = dock.session.viewer
    middle = QPoint(mouse.canvas.width() // 2, mouse.canvas.height() // 2)
    viewer.dims.set_current_step(0, 6)
    zoom = camera(viewer).zoom
    mouse.wheel(-2, middle)
    assert dock.session.slice_on_screen == 6
    assert camera(viewer).zoom != zoom  # as napari has it

    dock.scan.radiology_mouse.click()
    zoom = camera(viewer).zoom
    mouse.wheel(-2, middle)  # towards the reader: to the feet
    assert dock.session.slice_on_screen == 4
    mouse.wheel(5, middle)
    assert dock.session.slice_on_screen == 9
    mouse.wheel(5, middle)
    assert dock.session.slice_on_screen == 11  # the last slice
    assert camera(viewer).zoom == zoom


def test_right_drag_sets_the_window(dock: CovSegDock, mouse: Mouse) -> None:
    viewer = dock.session.viewer
    image = dock.session.scan_image()
    dock.scan.windows["Lung"].click()
    start = QPoint(mouse.canvas.width() // 2, mouse.canvas.height() // 2)
    zoom = camera(viewer).zoom

    dock.scan.radiology_mouse.click()
    mouse.drag([start, start + QPoint(60, 0)], Qt.MouseButton.RightButton)
    low, high = image.contrast_limits
    assert high - low > 1600 and (low + high) / 2 == pytest.approx(-600, abs=1)
    mouse.drag([start, start + QPoint(0, 60)], Qt.MouseButton.RightButton)
    assert np.mean(image.contrast_limits) > -500
    assert camera(viewer).zoom == zoom
    assert dock.scan.window.text().startswith("L -")

    # with a brush in hand the right button is napari's
    limits = tuple(image.contrast_limits)
    lesions = dock.session.layers.labels["lesions"]
    viewer.layers.selection.active = lesions
    lesions.mode = "paint"
    mouse.drag([start, start + QPoint(60, 0)], Qt.MouseButton.RightButton)
    assert tuple(image.contrast_limits) == limits

    lesions.mode = "pan_zoom"
    dock.scan.radiology_mouse.click()
    mouse.drag([start, start + QPoint(60, 0)], Qt.MouseButton.RightButton)
    assert tuple(image.contrast_limits) == limits


def test_a_window_may_leave_the_range_of_the_data(dock: CovSegDock) -> None:
    image = dock.session.scan_image()
    set_window(image, 2000, 8000)
    assert tuple(image.contrast_limits) == (-2000, 6000)
