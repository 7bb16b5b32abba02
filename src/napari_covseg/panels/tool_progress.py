"""How far a tool over the whole volume is, and a button that stops it."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from napari_covseg.jobs.events import Progress
from napari_covseg.panels.correction import Correction
from napari_covseg.panels.step import button


class ToolProgress(QWidget):
    """Shows itself while a tool runs.

    Parameters
    ----------
    correction : Correction
    """

    def __init__(self, correction: Correction) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setToolTip("How far the tool is.")
        self.cancel = button("Cancel", "Stop the tool; it changes nothing then.")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)
        self._on_working(correction.running)
        self.cancel.clicked.connect(correction.cancel)
        correction.working.connect(self._on_working)
        correction.progressed.connect(self._on_progressed)

    def _on_working(self, tool: str) -> None:
        self.setVisible(bool(tool))
        self.bar.setRange(0, 0)
        self.bar.setFormat(f"{tool} …")

    def _on_progressed(self, progress: Progress) -> None:
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)
