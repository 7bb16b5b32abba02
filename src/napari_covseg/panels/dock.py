"""The dock: all steps in the order of the work, and what lies under the cursor."""

from __future__ import annotations

from napari import Viewer
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFrame, QScrollArea, QVBoxLayout, QWidget
from superqt import QCollapsible

from napari_covseg.panels.correct.correct_step import CorrectStep
from napari_covseg.panels.correct.history_step import HistoryStep
from napari_covseg.panels.learn.learn_step import LearnStep
from napari_covseg.panels.reading import ReadingLine
from napari_covseg.panels.report.export_step import ExportStep
from napari_covseg.panels.scan.scan_step import ScanStep
from napari_covseg.panels.segment.segment_step import SegmentStep
from napari_covseg.panels.step import RESEARCH_USE, Paragraph, Step, folded

WIDTH = 330


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
        self.session = self.scan.session
        self.reading = ReadingLine(self.session)
        self.use = Paragraph(f"{RESEARCH_USE}. Labels from a model are suggestions until you review them.")
        self.use.setToolTip("This software is no medical device.")

        steps = QWidget()
        column = QVBoxLayout(steps)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(2)
        self.sections = [
            collapsible(self.scan, opened=True),
            collapsible(self.segment, opened=True),
            collapsible(self.correct, opened=False),  # all are too much for a low screen
            collapsible(self.history, opened=False),
            collapsible(self.learn, opened=False),
            collapsible(self.export, opened=False),
        ]
        for section in self.sections:
            column.addWidget(section)
        column.addStretch(1)

        # on a low screen the steps scroll, instead of being cut off
        area = QScrollArea()
        area.setWidget(steps)
        area.setWidgetResizable(True)
        area.setFrameShape(QFrame.Shape.NoFrame)
        area.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(4)
        layout.addWidget(self.use)
        layout.addWidget(area, 1)
        layout.addWidget(self.reading)


def collapsible(step: Step, *, opened: bool) -> QCollapsible:
    """Return a step under a title that folds it away."""
    section = folded(step.title, step, "Fold this step away, or open it.")
    if opened:
        section.expand(animate=False)
    return section
