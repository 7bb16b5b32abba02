"""The dock: all steps in the order of the work, and what lies under the cursor."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from napari import Viewer
from qtpy.QtCore import QEvent, Qt, QTimer
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import QFrame, QLabel, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_covseg.panels.correct.correct_step import CorrectStep
from napari_covseg.panels.correct.history_step import HistoryStep
from napari_covseg.panels.keys import STEP_KEYS, shown
from napari_covseg.panels.layers import label_name, voxel_at
from napari_covseg.panels.learn.learn_step import LearnStep
from napari_covseg.panels.napari_private import canvas_widget
from napari_covseg.panels.report.export_step import ExportStep
from napari_covseg.panels.scan.scan_step import ScanStep
from napari_covseg.panels.segment.segment_step import SegmentStep
from napari_covseg.panels.session import Session
from napari_covseg.panels.step import (
    FOCUS_STYLE,
    RESEARCH_USE,
    Paragraph,
    bring_into_view,
    fill,
    folded,
    tab_in_order,
)
from napari_covseg.panels.triage.triage_step import TriageStep

WIDTH, POINTS, WIDER = 330, 10, 40  # of the dock, with letters of so many points; for each point more

# of the patient's position in mm: the letter of the positive and of the negative side
SIDES = (("L", "R"), ("P", "A"), ("H", "F"))


class CovSegDock(QWidget):
    """Scan, triage, segment, correct, learn, export: each step collapses.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setMinimumWidth(WIDTH)
        self.scan = ScanStep(napari_viewer)
        self.triage = TriageStep(napari_viewer)
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

        in_order = (
            self.scan, self.triage, self.segment, self.correct, self.history, self.learn, self.export,
        )  # fmt: skip
        self.sections = [
            folded(step.title, step, f"Fold this step away, or open it. {shown(key)} goes to it.")
            for step, key in zip(in_order, STEP_KEYS.values(), strict=True)
        ]
        for section, step in zip(self.sections, in_order, strict=True):
            if step in (self.scan, self.segment):  # all are too much for a low screen
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
        self.setStyleSheet(FOCUS_STYLE)
        tab_in_order(self)
        picture = canvas_widget(napari_viewer)  # where the keys of the tools work
        mains = (
            self.scan.open_file, self.triage.run, self.segment.run, picture, self.history.table,
            self.learn.start, self.export.save,
        )  # fmt: skip
        for key, section, main in zip(STEP_KEYS.values(), self.sections, mains, strict=True):
            shortcut = QShortcut(QKeySequence(key.replace("-", "+")), self)
            shortcut.activated.connect(partial(self._go_to, section, main))

    def changeEvent(self, event: QEvent) -> None:
        """Become wider where the viewer's letters are larger: buttons side by side would be cut off."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            QTimer.singleShot(0, self._fit)  # once what is in it has its letters

    def _fit(self) -> None:
        self.setMinimumWidth(WIDTH + round(WIDER * max(0.0, self.use.font().pointSizeF() - POINTS)))

    def _go_to(self, section: QCollapsible, main: QWidget) -> None:
        """Open a step, and give the keyboard to what is done in it, or to its title while that is off."""
        section.expand(animate=False)
        aim = main if main.isEnabled() else section.toggleButton()
        aim.setFocus(Qt.FocusReason.ShortcutFocusReason)
        QTimer.singleShot(0, partial(bring_into_view, section if aim is not main else main))


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
