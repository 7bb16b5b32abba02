"""One prediction as it arrives: slices are merged as they come, the last 3-D pass is one undoable step."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QObject, QTimer, Signal

from napari_covseg.cases import OpenCase
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import (
    END,
    Cancelled,
    Event,
    Failed,
    Notice,
    Progress,
    RunStarted,
    SlicesDone,
    VolumeDone,
)
from napari_covseg.labels import GROUPS, Group
from napari_covseg.panels.model_step import SliceChange, slice_change

MERGE_EVERY = 20  # ms between two turns of merging ...
MERGE_FOR = 0.012  # ... and seconds that one may take, so that scrubbing stays smooth
BACKLOG = 30  # files that may wait to be written: until they are, each slice is in memory twice


class Prediction(QObject):
    """Takes a job's events and brings its slices into the open case.

    Parameters
    ----------
    case : OpenCase
    model_name : str
        For what is told to a person.
    write_step : callable
        Takes a group and its changes, slice by slice; makes them one undoable step.

    Signals
    -------
    progressed : Progress
    noticed : str
    slice_came : int
        A slice was merged, whether that changed labels or not.
    slices_changed : tuple of int
        Slices whose labels are new in memory.
    failed : str
        Slices cannot be taken over, in one sentence; the job itself goes on to its end.
    ended : str
        Empty, or what went wrong.
    """

    progressed = Signal(object)
    noticed = Signal(str)
    slice_came = Signal(int)
    slices_changed = Signal(object)
    failed = Signal(str)
    ended = Signal(str)

    def __init__(
        self,
        case: OpenCase,
        model_name: str,
        write_step: Callable[[Group, list[SliceChange]], None],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self.model_name = model_name
        self.cancelled = False
        self._case = case
        self._write_step = write_step
        self._run_id = ""
        self._abandoned = False
        self._waiting: dict[int, None] = {}  # slices to merge, in the order they came
        self._late: set[int] = set()
        self._last_pass: dict[Group, list[SliceChange]] | None = None
        self._end: Event | None = None
        self._timer = QTimer(self)
        self._timer.setInterval(MERGE_EVERY)
        self._timer.timeout.connect(self._merge_some)

    @property
    def run_id(self) -> str:
        """Id of the run in the case, empty before the job has begun it."""
        return self._run_id

    def hear(self, event: Event) -> None:
        """Take one event of the job."""
        if self._abandoned:
            return
        if isinstance(event, RunStarted):
            self._run_id = event.run_id
        elif isinstance(event, Progress):
            self.progressed.emit(event)
        elif isinstance(event, Notice):
            self.noticed.emit(event.text)
        elif isinstance(event, SlicesDone):
            self._waiting.update(dict.fromkeys(event.slices))
            self._timer.start()
        elif isinstance(event, VolumeDone):
            # What still waits was never seen without the last pass: undoing it must not empty it.
            self._late = set(self._waiting)
            self._last_pass = {group: [] for group in GROUPS}
            self._waiting = dict.fromkeys(range(len(self._case.voxels)))
            self._timer.start()
        elif isinstance(event, END):
            self._end = event
            self.cancelled = isinstance(event, Cancelled)
            if isinstance(event, Failed) and self._run_id:
                # a child that died has finished slices of which it could not tell
                self._waiting.update(dict.fromkeys(range(len(self._case.voxels))))
            self._timer.start()

    def abandon(self) -> None:
        """Merge nothing more; what the run holds stays in the case."""
        self._abandoned = True
        self._timer.stop()
        self._waiting.clear()

    def _merge_some(self) -> None:
        until = time.perf_counter() + MERGE_FOR
        changed: list[int] = []
        while self._waiting and time.perf_counter() < until and self._case.backlog < BACKLOG:
            z = next(iter(self._waiting))
            del self._waiting[z]
            try:
                changed += self._merge(z)
                self.slice_came.emit(z)
            except CovsegError as error:
                self._waiting.clear()
                self.failed.emit(str(error))
        if changed:
            self.slices_changed.emit(tuple(changed))
        if not self._waiting:
            self._timer.stop()
            self._finish_pass()
            if self._end is not None:
                self.ended.emit(self._end.message if isinstance(self._end, Failed) else "")

    def _merge(self, z: int) -> list[int]:
        undoable = self._last_pass is not None and z not in self._late
        return self._case.merge_slices(self._run_id, [z], self._write_and_note if undoable else None)

    def _write_and_note(
        self, group: Group, indices: tuple[npt.NDArray[np.intp], ...], values: npt.NDArray[np.uint8]
    ) -> None:
        """Write a slice's changes, and keep what undoing them needs."""
        live = self._case.live[group]
        before = live[indices]
        live[indices] = values
        assert self._last_pass is not None
        self._last_pass[group].append(slice_change(live.shape, indices, before, values))

    def _finish_pass(self) -> None:
        """Turn what the 3-D pass changed into one step that Ctrl+Z takes back."""
        changes, self._last_pass = self._last_pass, None
        for group, slices in (changes or {}).items():
            self._write_step(group, slices)
