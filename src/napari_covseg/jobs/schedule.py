"""Turns for several jobs in one thread: the highest priority goes next, equals alternate."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import Cancelled, Event, Failed, Started
from napari_covseg.jobs.faults import record_fault
from napari_covseg.jobs.run import Control, JobCancelled, run


@dataclass
class _Entry:
    job_id: int
    job: object
    priority: int
    control: Control = field(default_factory=Control)
    steps: Generator[Event, None, None] | None = None
    cancelled: bool = False
    told: bool = False
    last_turn: int = 0
    last_event: Event | None = None


class Scheduler:
    """Interleaves jobs step by step.

    `submit`, `cancel`, `focus` and `stop` may be called from any thread; `turn` and
    `close` belong to the one thread that does the work.

    Parameters
    ----------
    send : callable
        Takes (job id, event); called from several threads.
    """

    def __init__(self, send: Callable[[int, Event], None]) -> None:
        self._send = send
        self._entries: dict[int, _Entry] = {}
        self._changed = threading.Condition()
        self._turns = 0
        self._wake = False
        self.stopped = False

    @property
    def busy(self) -> bool:
        """Whether any job is waiting or running."""
        return bool(self._entries)

    def submit(self, job_id: int, job: object, priority: int = 0) -> None:
        """Queue a job."""
        with self._changed:
            self._turns += 1
            self._entries[job_id] = _Entry(job_id, job, priority, last_turn=self._turns)
            self._changed.notify()

    def cancel(self, job_id: int) -> None:
        """End a job: at once if it has not begun, else before its next step."""
        with self._changed:
            entry = self._entries.get(job_id)
            if entry is None:
                return
            if entry.steps is not None:
                entry.cancelled = True
                self._changed.notify()
                return
            del self._entries[job_id]
        self._send(job_id, Cancelled())

    def focus(self, job_id: int, z: int) -> None:
        """Tell a job which slice a person looks at; it hears it during its step."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.control.focus(z)

    def wake(self) -> None:
        """Make a `turn` that waits return."""
        with self._changed:
            self._wake = True
            self._changed.notify()

    def stop(self) -> None:
        """Ask the working thread to end."""
        self.stopped = True
        self.wake()

    def turn(self, timeout: float | None = None) -> bool:
        """Run one step of one job, waiting up to `timeout` s for one; False if there was none."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._wake, timeout)
            self._wake = False
            if not self._entries or self.stopped:
                return False
            entry = min(self._entries.values(), key=lambda e: (not e.cancelled, -e.priority, e.last_turn))
            self._turns += 1
            entry.last_turn = self._turns
            first = entry.steps is None
            if entry.steps is None:
                entry.steps = run(entry.job, entry.control)
        if first:
            self._send(entry.job_id, Started(entry.job_id))
        self._step(entry, entry.steps)
        return True

    def close(self) -> None:
        """Cancel every job."""
        for job_id, entry in list(self._entries.items()):
            self.cancel(job_id)
            while entry.steps is not None and job_id in self._entries:
                self._step(entry, entry.steps)

    def _step(self, entry: _Entry, steps: Generator[Event, None, None]) -> None:
        try:
            if entry.cancelled and not entry.told:
                entry.told = True
                event = steps.throw(JobCancelled())
            else:
                event = next(steps)
        except StopIteration:
            self._end(entry, None)
        except JobCancelled:
            self._end(entry, Cancelled())
        except CovsegError as error:
            self._end(entry, Failed(str(error), user_error=True))
        except Exception as error:
            self._end(entry, Failed(record_fault(entry.job, error), user_error=False))
        else:
            # A job that waits repeats itself; nobody needs to hear that.
            if event != entry.last_event:
                entry.last_event = event
                self._send(entry.job_id, event)

    def _end(self, entry: _Entry, event: Event | None) -> None:
        with self._changed:
            self._entries.pop(entry.job_id, None)
        if event is not None:
            self._send(entry.job_id, event)
