"""What the generator of a job is made of: cancellation, focus, threads, progress."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future
from typing import TypeVar

from napari_covseg.jobs.events import Event, Progress

T = TypeVar("T")
WORK_THREAD = "covseg-work"
HEARTBEAT = 0.05  # seconds between two turns of a job that waits for a thread


class JobCancelled(Exception):
    """Thrown into a job that is cancelled; it may still tell what it has finished, then ends."""


class Control:
    """What may be said to a running job, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._z: int | None = None
        self._listener: Callable[[int], None] | None = None

    def focus(self, z: int) -> None:
        """Say that slice `z` is the one a person looks at now."""
        with self._lock:
            self._z = z
            listener = self._listener
        if listener is not None:
            listener(z)

    def on_focus(self, listener: Callable[[int], None]) -> None:
        """Call `listener` with every new focus, and at once with one that came before."""
        with self._lock:
            self._listener = listener
            z = self._z
        if z is not None:
            listener(z)


def in_thread(call: Callable[[], T], meanwhile: Callable[[], Event]) -> Generator[Event, None, T]:
    """Run a call that cannot be cut into steps in a thread, and return its result.

    Until it is done ``meanwhile()`` is yielded, so that other jobs get their turns and
    a cancellation is answered; the abandoned call then ends unheard.

    Parameters
    ----------
    call : callable
        The work.
    meanwhile : callable
        Makes the event of a turn in which nothing but waiting happened.
    """
    future: Future[T] = Future()

    def work() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # handed to the job, whatever it is
            future.set_exception(error)

    threading.Thread(target=work, name=WORK_THREAD, daemon=True).start()
    while True:
        try:
            return future.result(timeout=HEARTBEAT)
        except TimeoutError:
            if future.done():
                return future.result()  # its own result, or its own TimeoutError
        yield meanwhile()


class ProgressMeter:
    """Counts what is done since it was made, and how fast.

    Parameters
    ----------
    total : int
    unit : str
        What is counted, in the plural.
    begun : int
        How many were done before.
    """

    def __init__(self, total: int, unit: str = "slices", begun: int = 0) -> None:
        self._total = total
        self._unit = unit
        self._begun = begun
        self._since = time.perf_counter()
        self.progress = Progress(begun, total, unit)

    def at(self, done: int) -> Progress:
        """Return the progress now that `done` of all are done; it is kept in `progress`."""
        if done > self._begun:
            speed = (done - self._begun) / max(time.perf_counter() - self._since, 1e-6)
            left = max(self._total - done, 0) / speed
            self.progress = Progress(done, self._total, self._unit, round(speed, 2), round(left, 1))
        return self.progress
