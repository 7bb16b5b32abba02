"""A model labels a case; and what makes its first slice come at once."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import asdict
from types import TracebackType
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.case import Case
from napari_covseg.cases.prediction import Prediction
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import JobError
from napari_covseg.jobs.allocator import give_back_memory
from napari_covseg.jobs.events import Event, Notice, PredictionStarted, Progress, SlicesDone, VolumeDone
from napari_covseg.jobs.find_model import find_model
from napari_covseg.jobs.memory import loaded_ensemble, warm_model
from napari_covseg.jobs.requests import Predict, WarmUp
from napari_covseg.jobs.steps import HEARTBEAT, Control, JobCancelled, ProgressMeter, in_thread
from napari_covseg.labels import GROUPS
from napari_covseg.learn.corrections import as_said_by, reviewed
from napari_covseg.predict.ensemble import Ensemble
from napari_covseg.predict.guide import Guide, Motion, likeness
from napari_covseg.predict.labelling import SlicePrediction
from napari_covseg.predict.options import PredictOptions
from napari_covseg.predict.slices import SliceOrder, predict_slices
from napari_covseg.predict.volume import coarse_lungs, drop_small_findings, finish_volume
from napari_covseg.scans.appearance import Appearance

Coarse = npt.NDArray[np.bool_]
T = TypeVar("T")
AHEAD = 8
"""Slices that may wait to be written, so that closing needs only a moment."""
Change = tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def predict_case(job: Predict, control: Control) -> Iterator[Event]:
    """Label a case into a new prediction: slices outwards from the focus, then the last pass in 3-D.

    Raises
    ------
    CaseError
        If the case cannot be read or its predictions not be written.
    ModelError
        If the model cannot be used.
    JobError
        If one slice does not fit into memory, or findings are to be measured in ml where the
        size of a voxel is not known.
    """

    def load() -> tuple[Case, Appearance, Ensemble, Guide | None]:
        workspace = Workspace.open(job.workspace, create=False)
        case = workspace.case(job.case)
        check_measurable(job.options, case.spacing, case.name)
        appearance = appearance_of(case, job.options)
        ensemble = loaded_ensemble(job.model, job.options, job.device, workspace)
        return case, appearance, ensemble, _guide(job, case, ensemble) if job.guided else None

    case, appearance, ensemble, guide = yield from in_thread(load, lambda: Progress(0, 0, "slices"))
    prediction = case.begin_prediction(
        ensemble.card.id,
        _settings(job, ensemble, guided=guide is not None),
        ensemble.card.outputs,
        job.revision,
        probabilities=job.probabilities,
        uncertainty=job.options.uncertainty,
    )
    yield PredictionStarted(prediction.id)
    coarse = yield from _slices(job, case, appearance, ensemble, prediction, control, guide)
    give_back_memory()  # of the network: the viewer needs its own for what comes now
    yield from _last_pass(job, case, ensemble, prediction, coarse)
    prediction.finish()
    yield VolumeDone(prediction.id)


def warm_up_model(job: WarmUp, control: Control) -> Iterator[Event]:
    """Load a model and try it, or for None only load the libraries: importing this module did that."""
    if job.model is not None:
        workspace = None if job.workspace is None else Workspace.open(job.workspace, create=False)
        found = find_model(job.model, workspace, task=None)
        yield from in_thread(lambda: warm_model(found, job.device), lambda: Progress(0, 0, "models"))


def check_measurable(options: PredictOptions, spacing: tuple[float, float, float] | None, name: str) -> None:
    """Raise JobError if findings are to be measured in ml where the size of a voxel is not known."""
    if options.min_ml > 0 and spacing is None:
        raise JobError(
            f"The size of a voxel is not known in {name or 'this scan'}: give the smallest finding in pixels."
        )


def appearance_of(case: Case, options: PredictOptions) -> Appearance:
    """Return what a case looks like, or as the asker says; JobError if it is no chest CT and not meant."""
    return approved(case.appearance, options, case.name or case.id)


def approved(appearance: Appearance, options: PredictOptions, name: str) -> Appearance:
    """Return what a scan looks like, or as the asker says; JobError if it is no chest CT and not meant."""
    appearance = appearance.overruled(**dict(options.seen_as))
    if (refusal := appearance.refusal(name)) and not options.anyway:
        raise JobError(f"{refusal} To label it all the same, say so: --anyway, or a second click on Run.")
    return appearance


def _settings(job: Predict, ensemble: Ensemble, *, guided: bool) -> dict[str, Any]:
    """Return what the prediction was made with, as JSON values; models by their ids."""
    finder = ensemble.lungs_from
    return {
        **asdict(job.options),
        "also": [model.card.id for model in ensemble.models[1:]],
        "lungs_from": finder.card.id if finder is not None else None,
        "tta": ensemble.augmentation,
        "uncertainty": ensemble.measures,
        "device": str(ensemble.device),
        "batch": job.batch,
        "guided": guided,
    }


def _guide(job: Predict, case: Case, ensemble: Ensemble) -> Guide | None:
    """Let the slices that a person has corrected or accepted guide those around them."""
    if not (zs := reviewed(case)):
        return None
    drawn = {z: as_said_by(ensemble.card, case.read_labels("lesions", z)) for z in zs}
    # every other voxel is enough to tell thick slices from thin ones
    few = np.stack([case.read_labels("lesions", z)[::2, ::2] for z in range(case.shape[0])])
    pixel = None if case.spacing is None else case.spacing[1:]
    return Guide(drawn, ensemble.card, likeness(few), pixel, Motion(case.read_slice, case.intensity))


def _slices(
    job: Predict,
    case: Case,
    appearance: Appearance,
    ensemble: Ensemble,
    prediction: Prediction,
    control: Control,
    guide: Guide | None,
) -> Generator[Event, None, list[Coarse]]:
    """Label every slice and write it, also when cancelled; return the lungs as the last pass wants them."""
    order = SliceOrder(case.shape[0], job.first_slice)
    control.on_focus(order.refocus)
    notices: list[str] = []
    batches = predict_slices(
        case.read_slice,
        ensemble,
        order,
        appearance=appearance,
        spacing=case.spacing[1:] if case.spacing else None,
        batch=job.batch,
        thresholds=job.options.levels(ensemble.card),
        probabilities=job.probabilities,
        min_pixels=job.options.min_pixels,
        guide=guide,
        notice=notices.append,
        heartbeat=HEARTBEAT,
    )
    meter = ProgressMeter(case.shape[0])
    coarse: dict[int, Coarse] = {}

    def write(slice_: SlicePrediction) -> None:
        kept = slice_.probabilities if job.probabilities else None
        labels = slice_.lungs, slice_.lesions
        prediction.write_slice(slice_.z, *labels, kept, slice_.entropy, slice_.uncertainty)

    def written(*, wait: bool) -> Iterator[Event]:
        if done := writer.written(wait=wait):
            yield SlicesDone(prediction.id, tuple(slice_.z for slice_ in done))
            yield meter.at(meter.progress.done + len(done))

    with SliceWriter(write) as writer, closing(batches):
        try:
            for batch in batches:
                first = not coarse  # a person waits for it
                for slice_ in batch:
                    coarse[slice_.z] = coarse_lungs(slice_.lungs)
                    writer.put(slice_)
                yield from written(wait=first)
                while notices:
                    yield Notice(notices.pop(0))
                yield meter.progress
            yield from written(wait=True)
        except JobCancelled:
            batches.close()  # before what is finished is written
            yield from written(wait=True)
            raise
    return [coarse[z] for z in sorted(coarse)]


def _last_pass(
    job: Predict, case: Case, ensemble: Ensemble, prediction: Prediction, coarse: list[Coarse]
) -> Iterator[Event]:
    count = case.shape[0]
    yield from _rewrite(
        prediction,
        finish_volume(
            prediction.read_slice,
            count,
            spacing=case.spacing,
            intensity=case.intensity,
            labels=ensemble.card.lesions,
            coarse=coarse,
        ),
        count,
    )
    if job.options.min_ml > 0 and case.spacing is not None:
        least = job.options.min_ml
        yield from _rewrite(
            prediction,
            drop_small_findings(prediction.read_slice, count, spacing=case.spacing, min_ml=least),
            count,
        )


def _rewrite(prediction: Prediction, passing: Iterator[Change | None], count: int) -> Iterator[Event]:
    """Write what a pass over the volume changes, to its end."""
    now = Progress(count, count, "slices")

    def write(change: Change) -> None:
        z, *labels = change
        for group, values in zip(GROUPS, labels, strict=True):
            prediction.write_final(group, z, values)

    with SliceWriter(write) as writer:
        changes: list[Change] | None = []
        while changes is not None:
            # In a thread, because telling the sides of a long scan apart takes seconds.
            changes = yield from in_thread(lambda: _some(passing), lambda: now)
            for change in changes or ():
                writer.put(change)
            writer.written()  # forgets them
            yield now
        writer.written(wait=True)


def _some(passing: Iterator[Change | None]) -> list[Change] | None:
    """Return what the last pass changes within a moment; None at its end."""
    until = time.perf_counter() + HEARTBEAT
    changes: list[Change] = []
    for step in passing:
        if step is not None:
            changes.append(step)
        if time.perf_counter() > until or len(changes) == AHEAD:
            return changes
    return changes or None


class SliceWriter(Generic[T]):
    """One thread that writes what it is given, in order.

    As a context manager it writes everything that was put before it closes, also when
    the block is left by an exception or a cancellation.

    Parameters
    ----------
    write : callable
        Writes one item.
    """

    def __init__(self, write: Callable[[T], None]) -> None:
        self._write = write
        self._todo: queue.Queue[T | None] = queue.Queue(AHEAD)
        self._done: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="covseg-writer", daemon=True)

    def __enter__(self) -> SliceWriter[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._todo.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, item: T) -> None:
        """Queue an item; waits while too many do.

        Raises whatever writing an earlier one has raised.
        """
        self._raise()
        self._todo.put(item)

    def written(self, *, wait: bool = False) -> list[T]:
        """Return the items written since the last call; with `wait`, all that were put."""
        if wait:
            self._todo.join()
        self._raise()
        done, self._done = self._done, []
        return done

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            if self._error is None:  # after an error only the queue is emptied
                try:
                    self._write(item)
                    self._done.append(item)
                except BaseException as error:  # raised in the thread that puts
                    self._error = error
            self._todo.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
