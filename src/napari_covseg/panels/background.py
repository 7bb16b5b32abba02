"""What is done beside the viewer's thread: short work in a thread, jobs in the computing child."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from napari.utils.notifications import notification_manager, show_error
from qtpy.QtCore import QObject, Signal
from superqt.utils import QSignalThrottler

from napari_covseg.errors import CovsegError
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import END, Event
from napari_covseg.jobs.requests import Request, WarmUp

T = TypeVar("T")

DRAIN_EVERY = 30  # ms; events that come faster are taken together
Handler = Callable[[Event], None]


class Abandoned(Exception):
    """Raised by work that a person has cancelled; nothing is told about it."""


def in_background(
    call: Callable[[], T],
    then: Callable[[T], Any],
    on_error: Callable[[str], Any] | None = None,
) -> None:
    """Run `call` in a thread, then `then` with its result on the viewer's thread.

    Parameters
    ----------
    call : callable
        Must not touch layers or widgets.
    then : callable
        Takes the result.
    on_error : callable, optional
        Takes the sentence of what went wrong, after it was shown.
    """

    def failed(error: BaseException) -> None:
        show_exception(error)
        if on_error is not None:
            on_error(str(error))

    from napari.qt.threading import create_worker  # here, because it loads all of the viewer's window

    create_worker(call, _connect={"returned": then, "errored": failed})


@contextmanager
def errors_shown() -> Iterator[None]:
    """Show an error that a person can cause, instead of raising it; the rest of the block is left out."""
    try:
        yield
    except CovsegError as error:
        show_error(str(error))


def show_exception(error: BaseException) -> None:
    """Tell a person's error in its one sentence, and a fault of this package with its traceback."""
    if isinstance(error, CovsegError):
        show_error(str(error))
    elif not isinstance(error, Abandoned):
        notification_manager.receive_error(type(error), error, error.__traceback__)


class Jobs(QObject):
    """The computing child of one viewer: requests go out, events come back on the viewer's thread.

    Signals
    -------
    child_died : str
        One sentence for a person.
    """

    child_died = Signal(str)
    _woken = Signal()

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._handlers: dict[int, Handler] = {}
        self._closed = False
        # The client wakes from its own thread; a signal brings that to this one.
        self._client = JobClient(wake=self._woken.emit, on_death=self.child_died.emit)
        self._throttler = QSignalThrottler(QSignalThrottler.EmissionPolicy.Trailing, self)
        self._throttler.setTimeout(DRAIN_EVERY)
        self._throttler.triggered.connect(self._drain)
        self._woken.connect(self._throttler.throttle)

    @property
    def child_pid(self) -> int | None:
        """Process id of the child, None while there is none."""
        return self._client.pid

    @property
    def waiting(self) -> bool:
        """Whether there are jobs that have not ended."""
        return bool(self._handlers)

    def warm_up(self, model: str | None, device: str, workspace: str | None = None) -> None:
        """Start the child, so that the first prediction answers at once."""
        self._client.start(WarmUp(model, device, workspace))

    def submit(self, request: Request, handler: Handler, priority: int = 0) -> int:
        """Run a request; `handler` takes its events, on this thread, until its end.

        Raises
        ------
        JobError
            If no process can be started.
        """
        job_id = self._client.submit(request, priority)
        self._handlers[job_id] = handler
        return job_id

    def cancel(self, job_id: int) -> None:
        """Have a job stop; its handler takes `Cancelled` then."""
        self._client.cancel(job_id)

    def focus(self, job_id: int, z: int) -> None:
        """Tell a job which slice is on screen."""
        self._client.focus(job_id, z)

    def free_gpu(self) -> None:
        """Give GPU memory back, at once or after what runs."""
        self._client.free_gpu()

    def close(self) -> None:
        """End the child within a second."""
        self._closed = True
        self._handlers.clear()
        self._client.close()

    def _drain(self) -> None:
        if self._closed:
            return
        for job_id, event in self._client.poll():
            handler = self._handlers.get(job_id)
            if isinstance(event, END):
                self._handlers.pop(job_id, None)
            if handler is not None:
                handler(event)
