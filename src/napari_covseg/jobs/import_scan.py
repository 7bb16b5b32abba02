"""A scan becomes a case."""

from __future__ import annotations

import threading
from collections.abc import Iterator

from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.allocator import give_back_memory
from napari_covseg.jobs.events import Event, Imported, Notice
from napari_covseg.jobs.requests import Import
from napari_covseg.jobs.steps import Control, ProgressMeter, in_thread
from napari_covseg.scans import read_scan


class _Abandoned(Exception):
    """Nobody waits for the case any more."""


def import_scan(job: Import, control: Control) -> Iterator[Event]:
    """Read a scan, keep it as a case of the workspace unless it is one, and tell its id.

    Cancelled, it leaves no case behind.

    Raises
    ------
    ScanError
        If the scan cannot be read, or cannot look as it is said to.
    CaseError
        If the workspace cannot be written.
    """
    abandoned = threading.Event()
    meter = ProgressMeter(0)

    def progress(done: int, total: int) -> None:
        if abandoned.is_set():
            raise _Abandoned
        meter.at(done)

    def work() -> tuple[Imported, list[str]]:
        nonlocal meter
        workspace = Workspace.open(job.workspace)
        scan = read_scan(job.path, series=job.series, values=job.values)
        known = None if job.anew else workspace.find_case(scan)
        if known is not None:
            return Imported(known, known=True), []
        meter = ProgressMeter(len(scan.voxels))
        case_id = workspace.add_case(scan, progress, dict(job.seen_as))
        return Imported(case_id), [*scan.notes, *workspace.case(case_id).appearance.remarks()]

    try:
        imported, notes = yield from in_thread(work, lambda: meter.progress)
    finally:
        abandoned.set()
        give_back_memory()  # a whole scan was in it
    yield meter.progress
    for note in notes:
        yield Notice(note)
    yield imported
