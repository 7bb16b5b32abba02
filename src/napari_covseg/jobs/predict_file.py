"""A model labels a scan that is in no workspace; the labels go to files."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from napari_covseg.errors import JobError, ScanError
from napari_covseg.jobs.events import Event, Notice, Written
from napari_covseg.jobs.requests import PredictFile
from napari_covseg.jobs.segment import segment
from napari_covseg.jobs.steps import Control, ProgressMeter, in_thread
from napari_covseg.labels import GROUPS
from napari_covseg.scans import LABEL_SUFFIXES, write_labels


class _Abandoned(Exception):
    """Nobody waits for the labels any more."""


def predict_file(job: PredictFile, control: Control) -> Iterator[Event]:
    """Label a scan and write the files that were asked for.

    Raises
    ------
    ScanError
        If the scan cannot be read or a file cannot be written; the latter is told first.
    ModelError, JobError
        As in `predict_case`.
    """
    outputs = (job.lungs_out, job.lesions_out, job.uncertainty_out)
    if not any(outputs):
        raise JobError("There is nothing to write; name a file for the lesions, the lungs or both.")
    for path in filter(None, outputs):
        check_output(path)
    options = replace(job.options, uncertainty=job.uncertainty_out is not None)
    abandoned = threading.Event()
    notices: list[str] = []
    meter = ProgressMeter(0)

    def progress(done: int, total: int) -> None:
        nonlocal meter
        if abandoned.is_set():
            raise _Abandoned
        if done == 0:
            meter = ProgressMeter(total)
        meter.at(done)

    def work() -> None:
        labelled = segment(
            job.path,
            job.model,
            device=job.device,
            options=options,
            series=job.series,
            values=job.values,
            batch=job.batch,
            progress=progress,
            notice=notices.append,
        )
        maps = (labelled.lungs, labelled.lesions, labelled.uncertainty)
        for path, values, names in zip(outputs, maps, (*GROUPS.values(), ()), strict=True):
            if path is not None and values is not None and not abandoned.is_set():
                write_labels(values, labelled.scan, path, names)

    waiting = in_thread(work, lambda: meter.progress)
    try:
        for event in waiting:
            while notices:
                yield Notice(notices.pop(0))
            yield event
    finally:
        abandoned.set()
    for notice in notices:
        yield Notice(notice)
    yield meter.progress
    for path in filter(None, outputs):
        yield Written(path)


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a label file that `scans.write_labels` could not write.

    Raises
    ------
    ScanError
        If the ending is unknown, the folder does not exist, or nothing can be written there.
    """
    file = Path(path).absolute()
    if not file.name.lower().endswith(LABEL_SUFFIXES):
        raise ScanError(f"{path} is no file for labels; let its name end in {', '.join(LABEL_SUFFIXES)}.")
    if file.is_dir():
        raise ScanError(f"{path} is a folder; give the name of a file.")
    if not file.parent.is_dir():
        raise ScanError(f"{path} cannot be written because its folder does not exist; make it first.")
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ScanError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
