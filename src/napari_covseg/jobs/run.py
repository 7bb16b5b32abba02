"""From a request to events: the same generators run inline, in the child, or anywhere else."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Event, Finished, Progress
from napari_covseg.jobs.requests import (
    Finetune,
    Import,
    Predict,
    PredictFile,
    Recognise,
    RecogniseFile,
    Refine,
    WarmUp,
)
from napari_covseg.jobs.steps import Control, in_thread

Work = Callable[[Any, Control], Iterator[Event]]
_ROOM = "napari_covseg.jobs"

JOBS: dict[type, tuple[str, str]] = {
    Import: (f"{_ROOM}.import_scan:import_scan", "slices"),
    Predict: (f"{_ROOM}.predict_case:predict_case", "slices"),
    PredictFile: (f"{_ROOM}.predict_file:predict_file", "slices"),
    WarmUp: (f"{_ROOM}.predict_case:warm_up_model", "models"),
    Finetune: (f"{_ROOM}.finetune_cases:finetune_cases", "steps"),
    Refine: (f"{_ROOM}.refine_slice:refine_slice", "slices"),
    Recognise: (f"{_ROOM}.recognise_case:recognise_case", "slices"),
    RecogniseFile: (f"{_ROOM}.recognise_file:recognise_file", "slices"),
}
"""Of each request, the generator that does it, as ``module:function``, and what its progress counts."""
# By name, because their modules load torch, which takes seconds and stays out of the viewer's process.


def run(job: object, control: Control | None = None) -> Generator[Event, None, None]:
    """Run a request, yielding its events; the last one is `Finished`.

    A step between two events is bounded in time. Closing the generator cancels the job
    and keeps the slices that were finished; throwing `JobCancelled` into it does the
    same, but lets it name the last ones.

    Parameters
    ----------
    job : Request
        What to do.
    control : Control, optional
        Where the slice on screen comes from.

    Raises
    ------
    CovsegError
        If the job cannot be done, in a sentence for a person.
    """
    if type(job) not in JOBS:
        raise JobError(f"Nothing knows how to do {type(job).__name__}; update napari-covseg and try again.")
    place, unit = JOBS[type(job)]
    work = yield from in_thread(lambda: _imported(place), lambda: Progress(0, 0, unit))
    yield from work(job, control or Control())
    yield Finished()


# Modules that import each other do not like to be imported by two threads.
_importing = threading.Lock()


def _imported(place: str) -> Work:
    module, name = place.split(":")
    with _importing:
        work: Work = getattr(importlib.import_module(module), name)
    return work
