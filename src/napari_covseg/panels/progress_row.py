"""How far something is, and a button that stops it."""

from __future__ import annotations

from qtpy.QtWidgets import QHBoxLayout, QProgressBar, QWidget

from napari_covseg.jobs.events import Progress
from napari_covseg.panels.session import Session, StepName
from napari_covseg.panels.step import button


class CancelBar(QWidget):
    """A bar and, beside it, the button *Cancel*.

    Parameters
    ----------
    tells, cancels : str
        What the bar tells and what the button does, for their tooltips.
    """

    def __init__(self, tells: str, cancels: str) -> None:
        super().__init__()
        self.bar = QProgressBar()
        self.bar.setToolTip(tells)
        self.cancel = button("Cancel", cancels)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.bar, 1)
        row.addWidget(self.cancel)

    def begin(self, what: str) -> None:
        """Say what goes on, without saying how far it is."""
        self.bar.setRange(0, 0)
        self.bar.setFormat(f"{what} …")

    def go_on(self, progress: Progress) -> None:
        """Move the bar."""
        self.bar.setRange(0, progress.total)
        self.bar.setValue(progress.done)


class ProgressRow(CancelBar):
    """Shows itself while its step works.

    Parameters
    ----------
    session : Session
    step : {"scan", "segment", "export"}
        Whose work it shows.
    keeps : str
        What stays when one cancels, for the tooltip.
    """

    def __init__(self, session: Session, step: StepName, keeps: str) -> None:
        tells = "How much is done, how fast it goes, and the time that is left."
        super().__init__(tells, f"Stop at once. {keeps}")
        self._session = session
        self._step = step
        self._on_busy(session.busy_with)
        self.cancel.clicked.connect(self._on_cancel)
        session.busy_changed.connect(self._on_busy)
        session.progressed.connect(self._on_progress)

    def _on_busy(self, what: str) -> None:
        mine = bool(what) and self._session.busy_step == self._step
        self.setVisible(mine)
        self.cancel.setEnabled(mine)
        if mine:
            self.begin(what)

    def _on_progress(self, progress: Progress) -> None:
        if not progress.total or not self.cancel.isEnabled():
            return
        self.go_on(progress)
        last_pass = self._step == "segment" and progress.done == progress.total
        self.bar.setFormat("Last pass in 3-D …" if last_pass else progress_text(progress))

    def _on_cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.bar.setFormat("Stopping …")
        self._session.cancel()


def progress_text(progress: Progress) -> str:
    """Return how far a job is, as a person says it."""
    parts = [f"{progress.done} of {progress.total}"]
    if progress.per_second:
        parts.append(f"{progress.per_second:.1f} {progress.unit}/s")
    if progress.seconds_left is not None:
        left = round(progress.seconds_left)
        parts.append(f"{left // 60}:{left % 60:02d} left")
    return " · ".join(parts)
