from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from canvas_mouse import Mouse
from napari import Viewer

from napari_covseg.panels.dock import CovSegDock, patient_position
from napari_covseg.scans import Scan


@pytest.mark.parametrize(
    ("voxel", "said"),
    [((0, 0, 0), "R 140.0  A 120.0  F 30.0 mm"), ((5, 50, 60), "L 40.0  P 30.0  H 20.0 mm")],
)
def test_position_is_the_patients(voxel: tuple[int, int, int], said: str) -> None:
    affine = np.array([[0, 0, 3.0, -140], [0, 3.0, 0, -120], [10.0, 0, 0, -30], [0, 0, 0, 1]])
    assert patient_position(affine, *voxel) == said


def test_the_cursor_is_read(
    workbench: tuple[Viewer, CovSegDock],
    mouse: Mouse,
    add_scan: Callable[[Viewer, Scan], Any],
    scan: Scan,
    qtbot: Any,
) -> None:
    viewer, dock = workbench
    assert dock.reading.text() == ""
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=20_000)
    viewer.dims.set_current_step(0, 5)
    z = viewer.dims.point[0]

    def reads(text: str, position: tuple[float, ...]) -> bool:
        # looked up each time: the canvas may still get its size from a dock that has just filled
        mouse.move(mouse.at(position))
        return text in dock.reading.text()

    qtbot.waitUntil(lambda: reads("· 0 HU", (z, 56 * 3, 28 * 3)))
    assert dock.reading.text().splitlines()[0] == "Slice 6 of 12 · 0 HU"
    assert dock.reading.text().splitlines()[1] == "R 56.0  P 28.0  H 50.0 mm"

    dock.session.case.live["lungs"][5, 56, 28] = 1
    dock.session.case.live["lesions"][5, 56, 28] = 3
    dock.session.labels_changed.emit()
    assert dock.reading.text().splitlines()[2] == "right lung · consolidation"

    qtbot.waitUntil(lambda: reads("Slice 6 of 12", (z, -8, 100)) and "HU" not in dock.reading.text())
    viewer.dims.set_current_step(0, 0)
    assert dock.reading.text() == "Slice 1 of 12"
