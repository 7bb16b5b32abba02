from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from napari import Viewer

from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.letters import letters_for
from napari_covseg.panels.napari_private import camera
from napari_covseg.scans import Scan


@pytest.mark.parametrize(
    ("displayed", "vertical", "horizontal", "expected"),
    [
        ((1, 2), "down", "right", "APRL"),
        ((1, 2), "up", "right", "PARL"),
        ((1, 2), "down", "left", "APLR"),
        ((0, 2), "up", "right", "HFRL"),
        ((0, 1), "up", "right", "HFAP"),
        ((2, 1), "down", "right", "RLAP"),
    ],
)
def test_letters_name_the_sides(
    displayed: tuple[int, int], vertical: str, horizontal: str, expected: str
) -> None:
    letters = letters_for(displayed, vertical, horizontal)
    assert "".join(letters[side] for side in ("top", "bottom", "left", "right")) == expected


def test_letters_follow_the_viewer(
    workbench: tuple[Viewer, CovSegDock], add_scan: Callable[[Viewer, Scan], Any], scan: Scan, qtbot: Any
) -> None:
    viewer, dock = workbench
    letters = dock.workbench.letters
    assert letters.texts() == {}
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=20_000)
    assert letters.texts() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}

    viewer.dims.order = (1, 0, 2)  # coronal: it stands on its feet
    assert letters.texts() == {"top": "H", "bottom": "F", "left": "R", "right": "L"}
    assert camera(viewer).orientation2d[0] == "up"

    viewer.dims.order = (0, 1, 2)
    assert letters.texts()["top"] == "A"
    camera(viewer).orientation2d = ("down", "left")  # the person's own choice is followed
    assert letters.texts()["left"] == "L"

    viewer.dims.ndisplay = 3
    assert letters.texts() == {}
    viewer.dims.ndisplay = 2
    dock.workbench.opening.close()
    assert letters.texts() == {}
