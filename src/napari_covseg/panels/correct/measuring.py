"""Drag for a distance in mm, click for the HU and the volume of what lies there."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import numpy as np
from napari.layers import Shapes
from qtpy.QtCore import QObject, Signal

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.edit.measure import Reading, read_disc, read_part, ruler
from napari_covseg.panels.background import in_background
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.layers import add_aid, placed_like, remove_layers, voxel_at
from napari_covseg.panels.session import Session

DISC_MM = 5.0  # radius of what is measured where there is no label
NAME = "Ruler"


class Measuring(QObject):
    """A ruler and a probe for one viewer.

    Parameters
    ----------
    session : Session
    correction : Correction

    Signals
    -------
    measured : str
        What was measured, in one line; empty when it was put away.
    """

    measured = Signal(str)

    def __init__(self, session: Session, correction: Correction) -> None:
        super().__init__(session)
        self._session = session
        self._correction = correction
        self.active = False
        self._asked = 0  # so that what was asked before is not shown
        self._line: Shapes | None = None
        session.viewer.mouse_drag_callbacks.append(self._on_mouse)
        correction.taken.connect(self._on_taken)
        session.case_changed.connect(lambda: self.switch(False))

    def toggle(self) -> None:
        """Take the ruler in the hand, or put it away."""
        self.switch(not self.active)

    def switch(self, active: bool) -> None:
        """Measure with the left button from now on, or no longer."""
        self.active = active and self._session.case is not None
        if self.active:
            self._correction.put_away()
        else:
            self._remove_line()
        self.measured.emit("Drag for a distance, click for HU and volume." if self.active else "")

    def _on_taken(self) -> None:
        if self.active:
            self.switch(False)

    def _on_mouse(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        image, case = self._session.scan_image(), self._session.case
        if not self.active or image is None or case is None or event.button != 1 or viewer.dims.ndisplay != 2:
            return
        self._asked += 1
        begin, voxel = np.asarray(image.world_to_data(event.position)), voxel_at(image, event.position)
        event.handled = True
        yield
        moved = False
        while event.type == "mouse_move":
            end = np.asarray(image.world_to_data(event.position))
            moved = True
            length = ruler(begin.tolist(), end.tolist(), case.case.spacing)
            self._draw_line(begin, end)
            self.measured.emit(f"{length:.1f} {'mm' if case.case.spacing else 'px'}")
            event.handled = True
            yield
        if not moved and voxel is not None:
            self._probe(case, voxel)

    def _probe(self, case: OpenCase, at: tuple[int, int, int]) -> None:
        labels, spacing = case.live["lesions"], case.case.spacing
        if labels[at]:
            here = read_part(labels, case.voxels, at, spacing)
            text = f"On this slice: {reading_text(here, case.case.intensity)}"
            self.measured.emit(f"{text}\nAll of it: …")
            self._asked += 1
            asked = self._asked

            def show(reading: Reading) -> None:
                if self.active and asked == self._asked:
                    self.measured.emit(f"{text}\nAll of it: {reading_text(reading, case.case.intensity)}")

            # through a whole scan, which takes a moment
            in_background(lambda: read_part(labels, case.voxels, at, spacing, three_d=True), show)
        else:
            reading = read_disc(case.voxels, at, DISC_MM, spacing)
            self.measured.emit(f"Disc of {2 * DISC_MM:.0f} mm: {reading_text(reading, case.case.intensity)}")

    def _draw_line(self, begin: Any, end: Any) -> None:
        viewer, image = self._session.viewer, self._session.scan_image()
        assert image is not None
        line = [np.stack([begin, end])]
        if self._line is None or self._line not in viewer.layers:
            self._line = Shapes(
                line,
                shape_type="line",
                edge_color="yellow",
                edge_width=1,
                name=NAME,
                **placed_like(image),
            )
            add_aid(viewer, self._line)
        else:
            self._line.data = line

    def _remove_line(self) -> None:
        line, self._line = self._line, None
        remove_layers(self._session.viewer, line)


def reading_text(reading: Reading, intensity: str) -> str:
    """Return a reading in one line: ``-620 ± 85 HU, 3.2 ml``."""
    parts = [f"{reading.mean:.0f} ± {reading.sd:.0f}{' HU' if intensity == 'HU' else ''}"]
    if reading.area_mm2 is not None:
        parts.append(f"{reading.area_mm2 / 100:.2f} cm²")
    if reading.volume_ml is not None:
        parts.append(f"{reading.volume_ml:.2f} ml")
    return ", ".join(parts)
