"""The dock: all steps in the order of the work, and what lies under the cursor."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget

from napari_covseg.panels.correct.correct_step import CorrectStep
from napari_covseg.panels.correct.history_step import HistoryStep
from napari_covseg.panels.layers import label_name, voxel_at
from napari_covseg.panels.learn.learn_step import LearnStep
from napari_covseg.panels.report.export_step import ExportStep
from napari_covseg.panels.scan.scan_step import ScanStep
from napari_covseg.panels.segment.segment_step import SegmentStep
from napari_covseg.panels.session import Session
from napari_covseg.panels.step import RESEARCH_USE, Paragraph, fill, folded

WIDTH = 330

# of the patient's position in mm: the letter of the positive and of the negative side
SIDES = (("L", "R"), ("P", "A"), ("H", "F"))


class CovSegDock(QWidget):
    """Scan, segment, correct, learn, export: each step collapses.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumWidth(WIDTH)
        self.scan = ScanStep(napari_viewer)
        self.segment = SegmentStep(napari_viewer)
        self.correct = CorrectStep(napari_viewer)
        self.history = HistoryStep(napari_viewer)
        self.learn = LearnStep(napari_viewer)
        self.export = ExportStep(napari_viewer)
        self.workbench = self.scan.workbench
        self.session = self.workbench.session
        self.reading = ReadingLine(self.session)
        self.use = Paragraph(f"{RESEARCH_USE}. Labels from a model are suggestions until you review them.")
        self.use.setToolTip("This software is no medical device.")

        in_order = (self.scan, self.segment, self.correct, self.history, self.learn, self.export)
        self.sections = [folded(step.title, step, "Fold this step away, or open it.") for step in in_order]
        for section in self.sections[:2]:  # all are too much for a low screen
            section.expand(animate=False)
        steps = QWidget()
        fill(steps, *self.sections, spacing=2)
        steps.layout().addStretch(1)

        # on a low screen the steps scroll, instead of being cut off
        area = QScrollArea(
            widgetResizable=True,
            frameShape=QFrame.Shape.NoFrame,
            horizontalScrollBarPolicy=Qt.ScrollBarPolicy.ScrollBarAlwaysOff,
        )
        area.setWidget(steps)
        layout = QVBoxLayout(self, spacing=4)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self.use)
        layout.addWidget(area, 1)
        layout.addWidget(self.reading)


class ReadingLine(QLabel):
    """Follows the cursor over the scan.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.setToolTip("Value and label under the cursor, and its position in the patient.")
        self.setMinimumHeight(3 * self.fontMetrics().lineSpacing())
        self.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.setTextFormat(Qt.TextFormat.PlainText)
        for signal in (
            session.cursor_moved,
            session.slice_changed,
            session.case_changed,
            session.labels_changed,
        ):
            signal.connect(self._on_moved)
        self._on_moved()

    def _on_moved(self) -> None:
        self.setText(reading(self._session))


def reading(session: Session) -> str:
    """Return what lies under the cursor in three lines: value, place, labels."""
    case, image = session.case, session.scan_image()
    if case is None or image is None:
        return ""
    count = len(case.voxels)
    first = f"Slice {session.slice_on_screen + 1} of {count}"
    position = np.asarray(session.viewer.cursor.position, float)
    if len(position) != 3:
        return first
    voxel = voxel_at(image, position)
    if voxel is None:
        return first
    z, y, x = voxel
    unit = " HU" if case.case.intensity == "HU" else ""
    first += f" · {case.voxels[z, y, x]}{unit}"
    names = [label_name(group, int(labels[z, y, x])) for group, labels in case.live.items()]
    if case.case.spacing is None:
        place = f"row {y}, column {x}"
    else:
        place = patient_position(np.asarray(case.case.header["affine"]), z, y, x)
    return "\n".join([first, place, " · ".join(name for name in names if name)])


def patient_position(affine: np.ndarray[Any, Any], z: int, y: int, x: int) -> str:
    """Return where a voxel is in the patient, for example ``L 12.0  A 45.5  H 130.0 mm``.

    Parameters
    ----------
    affine : ndarray of float, shape (4, 4)
        Of (z, y, x, 1) to mm in DICOM's LPS frame.
    z, y, x : int
    """
    mm = affine @ (z, y, x, 1.0)
    parts = [f"{sides[int(value < 0)]} {abs(value):.1f}" for sides, value in zip(SIDES, mm[:3], strict=True)]
    return "  ".join(parts) + " mm"
