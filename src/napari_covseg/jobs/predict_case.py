"""A model labels a case; and what makes its first slice come at once."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.cases import Case, Run, Workspace
from napari_covseg.jobs.events import Event, Notice, Progress, RunStarted, SlicesDone, VolumeDone
from napari_covseg.jobs.find_model import find_model
from napari_covseg.jobs.memory import loaded_model
from napari_covseg.jobs.pace import Pace
from napari_covseg.jobs.requests import Predict, WarmUp
from napari_covseg.jobs.run import HEARTBEAT, Control, JobCancelled, in_thread
from napari_covseg.jobs.slice_writer import AHEAD, SliceWriter
from napari_covseg.labels import GROUPS
from napari_covseg.learn.corrections import as_said_by, read_labels, reviewed
from napari_covseg.models.file import Model
from napari_covseg.predict.clean import coarse_lungs, finish_volume
from napari_covseg.predict.guide import Guide, likeness
from napari_covseg.predict.motion import Motion
from napari_covseg.predict.order import SliceOrder
from napari_covseg.predict.slices import SlicePrediction, predict_slices, rehearse

Coarse = npt.NDArray[np.bool_]
Change = tuple[int, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]


def predict_case(job: Predict, control: Control) -> Iterator[Event]:
    """Label a case into a new run: slices outwards from the focus, then the last pass in 3-D.

    Raises
    ------
    CaseError
        If the case cannot be read or its predictions not be written.
    ModelError
        If the model cannot be used.
    JobError
        If one slice does not fit into memory.
    """

    def load() -> tuple[Case, Model, Guide | None]:
        workspace = Workspace.open(job.workspace, create=False)
        case, model = workspace.case(job.case), loaded_model(find_model(job.model, workspace), job.device)
        return case, model, _guide(job, case, model) if job.guided else None

    case, model, guide = yield from in_thread(load, lambda: Progress(0, 0, "slices"))
    used: dict[str, Any] = {"device": str(model.device), "batch": job.batch, "threshold": job.threshold}
    used["guided"] = guide is not None
    run = case.begin_run(
        model.card.id, used, model.card.outputs, job.revision, probabilities=job.probabilities
    )
    yield RunStarted(run.id)
    coarse = yield from _slices(job, case, model, run, control, guide)
    yield from _last_pass(case, model, run, coarse)
    run.finish()
    yield VolumeDone(run.id)


def warm_up(job: WarmUp) -> Iterator[Event]:
    """Load a model and try it, or for None only load the libraries: importing this module did that."""
    if job.model is not None:
        workspace = None if job.workspace is None else Workspace.open(job.workspace, create=False)
        found = find_model(job.model, workspace)
        yield from in_thread(
            lambda: rehearse(loaded_model(found, job.device)), lambda: Progress(0, 0, "models")
        )


def lesion_thresholds(model: Model, threshold: float | None) -> dict[str, float]:
    """Return `threshold` for every lesion output; nothing for None."""
    return {} if threshold is None else {label.name: threshold for label in model.card.lesions}


def _guide(job: Predict, case: Case, model: Model) -> Guide | None:
    """Let the slices that a person has corrected or accepted guide those around them."""
    if not (zs := reviewed(case)):
        return None
    drawn = {z: as_said_by(model.card, read_labels(case, "lesions", z)) for z in zs}
    thresholds = {**model.card.thresholds, **lesion_thresholds(model, job.threshold)}
    card = replace(model.card, thresholds=thresholds)
    # every other voxel is enough to tell thick slices from thin ones
    few = np.stack([read_labels(case, "lesions", z)[::2, ::2] for z in range(case.shape[0])])
    pixel = None if case.spacing is None else case.spacing[1:]
    return Guide(drawn, card, likeness(few), pixel, Motion(case.read_slice, case.intensity))


def _slices(
    job: Predict, case: Case, model: Model, run: Run, control: Control, guide: Guide | None
) -> Generator[Event, None, list[Coarse]]:
    """Label every slice and write it, also when cancelled; return the lungs as the last pass wants them."""
    order = SliceOrder(case.shape[0], job.first_slice)
    control.on_focus(order.refocus)
    notices: list[str] = []
    batches = predict_slices(
        case.read_slice,
        model,
        order,
        intensity=case.intensity,
        spacing=case.spacing[1:] if case.spacing else None,
        batch=job.batch,
        thresholds=lesion_thresholds(model, job.threshold),
        probabilities=job.probabilities or guide is not None,
        notice=notices.append,
    )
    pace = Pace(case.shape[0])
    coarse: dict[int, Coarse] = {}

    def write(slice_: SlicePrediction) -> None:
        kept = slice_.probabilities if job.probabilities else None
        run.write_slice(slice_.z, slice_.lungs, slice_.lesions, kept, slice_.entropy)

    def told(*, wait: bool) -> Iterator[Event]:
        if done := writer.written(wait=wait):
            yield SlicesDone(run.id, tuple(slice_.z for slice_ in done))
            yield pace.at(pace.progress.done + len(done))

    with SliceWriter(write) as writer:
        try:
            for number, batch in enumerate(batches):
                for slice_ in batch if guide is None else map(guide, batch):
                    coarse[slice_.z] = coarse_lungs(slice_.lungs)
                    writer.put(slice_)
                # A person waits for the first one. On a CPU the network has every core, and
                # what is written beside it takes longer than what is written before it goes on.
                yield from told(wait=number == 0 or model.device.type == "cpu")
                while notices:
                    yield Notice(notices.pop(0))
                yield pace.progress
            yield from told(wait=True)
        except JobCancelled:
            yield from told(wait=True)
            raise
    return [coarse[z] for z in sorted(coarse)]


def _last_pass(case: Case, model: Model, run: Run, coarse: list[Coarse]) -> Iterator[Event]:
    count = case.shape[0]
    passing = finish_volume(
        run.read_slice,
        count,
        spacing=case.spacing,
        intensity=case.intensity,
        labels=model.card.lesions,
        coarse=coarse,
    )
    now = Progress(count, count, "slices")

    def write(change: Change) -> None:
        z, *labels = change
        for group, values in zip(GROUPS, labels, strict=True):
            run.write_final(group, z, values)

    with SliceWriter(write) as writer:
        changes: list[Change] | None = []
        while changes is not None:
            # In a thread, because telling the sides of a long scan apart takes seconds.
            changes = yield from in_thread(lambda: _some(passing), lambda: now)
            for change in changes or ():
                writer.put(change)
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
