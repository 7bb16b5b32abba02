"""From a request to events: the same generators run inline, in the child, or anywhere else."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from functools import singledispatch
from typing import ParamSpec, TypeVar

from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Event, Finished, Progress
from napari_covseg.jobs.requests import Finetune, Import, Predict, PredictFile, Refine, WarmUp

T = TypeVar("T")
P = ParamSpec("P")
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


def run(job: object, control: Control | None = None) -> Generator[Event, None, None]:
    """Run a request, yielding its events; the last one is `Finished`.

    A step between two events is bounded in time. Closing the generator cancels the job
    and keeps the slices that were finished; throwing `JobCancelled` into it does the
    same, but lets it tell of the last ones.

    Parameters
    ----------
    job : Request
        What to do.
    control : Control, optional
        Where the slice on screen is told.

    Raises
    ------
    CovsegError
        If the job cannot be done, in a sentence for a person.
    """
    yield from steps(job, control or Control())
    yield Finished()


@singledispatch
def steps(job: object, control: Control) -> Iterator[Event]:
    """Do the work of one kind of request; each kind registers its own generator."""
    raise JobError(f"Nothing knows how to do {type(job).__name__}; update napari-covseg and try again.")


# Modules that import each other do not like to be imported by two threads.
_importing = threading.Lock()


def _once_imported(
    load: Callable[[], Callable[P, Iterator[Event]]], unit: str, *args: P.args, **kwargs: P.kwargs
) -> Iterator[Event]:
    """Go on with the generator that `load` imports, in a thread because torch takes seconds."""

    def alone() -> Callable[P, Iterator[Event]]:
        with _importing:
            return load()

    begin = yield from in_thread(alone, lambda: Progress(0, 0, unit))
    yield from begin(*args, **kwargs)


@steps.register
def _(job: Import, control: Control) -> Iterator[Event]:
    def load() -> Callable[[Import], Iterator[Event]]:
        from napari_covseg.jobs.import_scan import import_scan

        return import_scan

    yield from _once_imported(load, "slices", job)


@steps.register
def _(job: Predict, control: Control) -> Iterator[Event]:
    def load() -> Callable[[Predict, Control], Iterator[Event]]:
        from napari_covseg.jobs.predict_case import predict_case

        return predict_case

    yield from _once_imported(load, "slices", job, control)


@steps.register
def _(job: PredictFile, control: Control) -> Iterator[Event]:
    def load() -> Callable[[PredictFile], Iterator[Event]]:
        from napari_covseg.jobs.predict_file import predict_file

        return predict_file

    yield from _once_imported(load, "slices", job)


@steps.register
def _(job: WarmUp, control: Control) -> Iterator[Event]:
    def load() -> Callable[[WarmUp], Iterator[Event]]:
        from napari_covseg.jobs.predict_case import warm_up

        return warm_up

    yield from _once_imported(load, "models", job)


@steps.register
def _(job: Finetune, control: Control) -> Iterator[Event]:
    def load() -> Callable[[Finetune], Iterator[Event]]:
        from napari_covseg.jobs.finetune_cases import finetune_cases

        return finetune_cases

    yield from _once_imported(load, "steps", job)


@steps.register
def _(job: Refine, control: Control) -> Iterator[Event]:
    def load() -> Callable[[Refine], Iterator[Event]]:
        from napari_covseg.jobs.refine_slice import refine_slice

        return refine_slice

    yield from _once_imported(load, "slices", job)


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
