"""A model labels a scan that is in no workspace; the labels go to files."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Event, Notice, Written
from napari_covseg.jobs.memory import loaded_model
from napari_covseg.jobs.output_file import check_output
from napari_covseg.jobs.pace import Pace
from napari_covseg.jobs.predict_case import lesion_thresholds
from napari_covseg.jobs.requests import PredictFile
from napari_covseg.jobs.run import in_thread
from napari_covseg.labels import Group
from napari_covseg.models.catalogue import find
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans import read_scan, write_labels


class _Abandoned(Exception):
    """Nobody waits for the labels any more."""


def predict_file(job: PredictFile) -> Iterator[Event]:
    """Label a scan and write the files that were asked for.

    Raises
    ------
    ScanError
        If the scan cannot be read or a file cannot be written; the latter is told first.
    ModelError, JobError
        As in `predict_case`.
    """
    outputs: dict[Group, str | None] = {"lungs": job.lungs_out, "lesions": job.lesions_out}
    if not any(outputs.values()):
        raise JobError("There is nothing to write; name a file for the lesions, the lungs or both.")
    for path in filter(None, outputs.values()):
        check_output(path)
    abandoned = threading.Event()
    notices: list[str] = []
    pace = Pace(0)

    def progress(done: int, total: int) -> None:
        if abandoned.is_set():
            raise _Abandoned
        pace.at(done)

    def work() -> None:
        nonlocal pace
        model = loaded_model(find(job.model).path, job.device)
        scan = read_scan(job.path, series=job.series)
        notices.extend(scan.notes)
        pace = Pace(len(scan.voxels))
        thresholds = lesion_thresholds(model, job.threshold)
        labels = predict_volume(
            scan, model, batch=job.batch, thresholds=thresholds, progress=progress, notice=notices.append
        )
        for path, values in zip(outputs.values(), labels, strict=True):
            if path is not None and not abandoned.is_set():
                write_labels(values, scan, path)

    waiting = in_thread(work, lambda: pace.progress)
    try:
        for event in waiting:
            while notices:
                yield Notice(notices.pop(0))
            yield event
    finally:
        abandoned.set()
    for notice in notices:
        yield Notice(notice)
    yield pace.progress
    for path in filter(None, outputs.values()):
        yield Written(path)
