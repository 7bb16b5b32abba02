"""A real viewer in which somebody paints in a case until the process is killed.

    python painting_viewer.py WORKSPACE CASE SEED

Tells on the standard output, as a line of JSON each, how the case is when it is open, and
what every stroke has left behind (see `told`).
"""

from __future__ import annotations

import json
import random
import sys
import time
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.labels import GROUPS


def checksum(labels: dict[Any, Any], touched: dict[Any, Any], review: npt.NDArray[np.uint8]) -> int:
    """Return one number for labels and touched of all groups and all review states."""
    arrays = [labels[group] for group in GROUPS] + [touched[group] for group in GROUPS] + [review]
    number = 0
    for array in arrays:
        number = zlib.crc32(np.ascontiguousarray(array), number)
    return number


class Painter:
    """A viewer with an open case, and the hand of a person in it."""

    def __init__(self, workspace: str, case_id: str, seed: int) -> None:
        from canvas_mouse import Mouse
        from napari import Viewer

        from napari_covseg.panels.dock import CovSegDock

        self.random = random.Random(seed)
        self.viewer = Viewer()
        self.viewer.window.resize(900, 600)
        dock = CovSegDock(self.viewer)  # without looking for all other plugins
        self.viewer.window.add_dock_widget(dock, name="CovSeg")
        self.workbench: Any = dock.workbench
        self.session: Any = dock.session
        self.workbench.jobs.warm_up = lambda *_: None  # nothing is computed here
        self.session.use_workspace(workspace)
        self.workbench.opening.case(case_id)
        self.until(lambda: self.session.case is not None and not self.session.busy_with)
        self.case = self.session.case
        self.layer = self.session.layers.labels["lesions"]
        self.mouse = Mouse(self.viewer)
        self.viewer.layers.selection.active = self.layer
        self.layer.mode = "paint"
        self.pause(0.2)

    def stroke(self) -> str:
        """Paint, erase, or take one step back, on some slice; return what it was."""
        from qtpy.QtCore import Qt
        from qtpy.QtTest import QTest

        chance = self.random.random()
        if chance < 0.15 and self.layer._undo_history:
            self.mouse.canvas.setFocus()
            QTest.keyClick(self.mouse.canvas, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
            return "undo"
        self.viewer.dims.set_current_step(0, self.random.randrange(self.case.voxels.shape[0]))
        self.layer.mode = "erase" if chance > 0.85 else "paint"
        self.layer.selected_label = self.random.randint(1, 4)
        self.layer.brush_size = self.random.randint(2, 12)
        self.mouse.drag([self._place(), self._place()])
        return str(self.layer.mode)

    def told(self, tool: str) -> dict[str, Any]:
        """Return when the last step ended, its revision's number, and a checksum of the case after it."""
        then = time.time()
        case = self.case
        after = checksum(case.live, case.touched, case.review)
        return {"time": then, "tool": tool, "revision": case.revision, "checksum": after}

    def choose_model(self) -> None:
        """Make another version of the model current, or the model that it began with."""
        learning = self.workbench.learning
        known = [learning.base, *(version.id for version in learning.versions())]
        learning.use(self.random.choice(known))

    def pause(self, seconds: float) -> None:
        """Let the window live for a while."""
        end = time.monotonic() + seconds
        self.until(lambda: time.monotonic() > end)

    def until(self, condition: Any) -> None:
        """Process events until something is true."""
        from qtpy.QtWidgets import QApplication

        end = time.monotonic() + 120
        while not condition():
            if time.monotonic() > end:
                raise SystemExit("nothing happens")
            QApplication.processEvents()
            time.sleep(0.002)

    def _place(self) -> Any:
        z = self.session.slice_on_screen
        y, x = (self.random.uniform(0.2, 0.8) * size for size in self.case.voxels.shape[1:])
        return self.mouse.at(tuple(self.session.scan_image().data_to_world((z, y, x))))


def main() -> None:
    """Paint until the end."""
    workspace, case_id, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
    painter = Painter(workspace, case_id, seed)

    def tell(tool: str) -> None:
        print(json.dumps(painter.told(tool)), flush=True)

    tell("open")
    while True:
        before = painter.case.revision
        tool = painter.stroke()
        if painter.case.revision > before:
            tell(tool)
        if painter.random.random() < 0.1:
            painter.choose_model()
        painter.pause(painter.random.uniform(0, 0.15))


if __name__ == "__main__":
    main()
