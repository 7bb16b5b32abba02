"""How far a tool over the whole volume is, and a button that stops it."""

from __future__ import annotations

from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.progress_row import CancelBar


class ToolProgress(CancelBar):
    """Shows itself while a tool runs.

    Parameters
    ----------
    correction : Correction
    """

    def __init__(self, correction: Correction) -> None:
        super().__init__("How far the tool is.", "Stop the tool; it changes nothing then.")
        self._on_working(correction.running)
        self.cancel.clicked.connect(correction.cancel)
        correction.working.connect(self._on_working)
        correction.progressed.connect(self.go_on)

    def _on_working(self, tool: str) -> None:
        self.setVisible(bool(tool))
        self.begin(tool)
