"""Jobs for the viewer: submit, cancel, hear events. Neither torch nor Qt is loaded here."""

from __future__ import annotations

import itertools
import pickle
import queue
import weakref
from collections.abc import Callable

from napari_covseg.jobs.child_process import ChildProcess, Ended
from napari_covseg.jobs.events import END, Event, Failed
from napari_covseg.jobs.messages import Cancel, Focus, FreeGPU, Submit
from napari_covseg.jobs.requests import WarmUp

WARM_UP_PRIORITY = -100


class JobClient:
    """Runs jobs in one warm child process, which is started again after it died.

    All methods return at once (`close` within a second) and belong to one thread.

    Parameters
    ----------
    wake : callable, optional
        Called **from another thread** whenever `poll` has something to fetch.
    on_death : callable, optional
        Takes one sentence; called by `poll`, or by `submit` if it comes first, once for
        every child that died.
    """

    def __init__(
        self,
        wake: Callable[[], None] | None = None,
        on_death: Callable[[str], None] | None = None,
    ) -> None:
        self.on_death = on_death
        self._wake = wake or (lambda: None)
        self._ids = itertools.count(1)
        self._running: set[int] = set()
        self._quiet: set[int] = set()  # warm-ups, of which nobody wants to hear
        self._events: list[tuple[int, Event]] = []  # heard, not yet polled
        self._child: ChildProcess | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def alive(self) -> bool:
        """Whether a child runs."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int | None:
        """Process id of the child, None without one."""
        return self._child.pid if self._child is not None else None

    @property
    def running(self) -> frozenset[int]:
        """Ids of the jobs whose end `poll` has not yet returned."""
        return frozenset(self._running)

    @property
    def log(self) -> list[str]:
        """The last lines that the child printed."""
        return list(self._child.log) if self._child is not None else []

    def start(self, warm_up: WarmUp | None = None) -> None:
        """Start the child, and let it load what predictions need while it has nothing to do.

        Raises
        ------
        JobError
            If no process can be started.
        """
        self._live_child()
        if warm_up is not None:
            self._quiet.add(self._send_job(warm_up, WARM_UP_PRIORITY))

    def submit(self, job: object, priority: int = 0) -> int:
        """Queue a request and return the job's id; starts the child if there is none.

        Parameters
        ----------
        job : Request
            What to do.
        priority : int
            Higher goes first, equals take turns.

        Raises
        ------
        JobError
            If no process can be started.
        """
        self._live_child()
        job_id = self._send_job(job, priority)
        self._running.add(job_id)
        return job_id

    def cancel(self, job_id: int) -> None:
        """Ask a job to stop; a `Cancelled` follows, finished slices are kept."""
        self._tell(Cancel(job_id))

    def focus(self, job_id: int, z: int) -> None:
        """Tell a job which slice is on screen; also while it is in the middle of a step."""
        if job_id in self._running:
            self._tell(Focus(job_id, z))

    def free_gpu(self) -> None:
        """Give GPU memory back: at once, or after the jobs that are running."""
        self._tell(FreeGPU())

    def poll(self) -> list[tuple[int, Event]]:
        """Return what has happened since the last call, in order, as (job id, event)."""
        self._hear()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End the child within a second; running jobs keep what they have finished."""
        self._stop()
        self._child = None
        self._running.clear()

    def _hear(self, wait: float = 0) -> None:
        """Take what is in the inbox; with `wait` also what comes until the child's end."""
        while self._child is not None:
            try:
                item = self._child.inbox.get(block=wait > 0, timeout=wait or None)
            except queue.Empty:
                return
            if isinstance(item, Ended):
                self._bury(item)
            elif item[0] not in self._quiet:
                self._events.append(item)
                if isinstance(item[1], END):
                    self._running.discard(item[0])

    def _live_child(self) -> ChildProcess:
        if self._child is not None and not self._child.alive:
            self._hear(wait=2)  # a death that nobody has polled must not take the next job along
            if self._child is not None:
                self._bury(Ended("it stopped answering"))
        if self._child is None:
            self._child = ChildProcess(self._wake)
            # Also ends the child at the interpreter's exit.
            self._stop = weakref.finalize(self, self._child.stop)
        return self._child

    def _send_job(self, job: object, priority: int) -> int:
        job_id = next(self._ids)
        self._tell(Submit(job_id, pickle.dumps(job), priority))
        return job_id

    def _tell(self, message: object) -> None:
        if self._child is not None:
            self._child.send(message)

    def _bury(self, ended: Ended) -> None:
        message = (
            f"The computing process ended unexpectedly ({ended.reason}); what it had finished is kept, "
            "and the next job starts a new one."
        )
        self._stop()
        self._child = None
        self._events += [(job_id, Failed(message, user_error=False)) for job_id in sorted(self._running)]
        self._running.clear()
        if self.on_death is not None:
            self.on_death(message)
