"""Models name what a scan shows that is in no workspace; its heat map goes into a picture."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import JobError, ScanError
from napari_covseg.files import write_bytes
from napari_covseg.jobs.events import Event, Notice, Progress, Written
from napari_covseg.jobs.recognise_case import Asked, ask, asked_about, scan_recognised, told
from napari_covseg.jobs.requests import RecogniseFile
from napari_covseg.jobs.steps import Control, in_thread
from napari_covseg.labels import Task
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import available
from napari_covseg.predict.slices import SliceOrder
from napari_covseg.recognise.answers import modality_of, of_scan, suited
from napari_covseg.recognise.recogniser import Answer, shows_lung
from napari_covseg.scans import Scan, read_scan
from napari_covseg.scans.appearance import Appearance
from napari_covseg.scans.scan import LUNG_WINDOW, in_window
from napari_covseg.scans.stated import look_at

TASKS: tuple[Task, ...] = ("recognition", "manifestations")
_HEIGHT = 512
_SHARES, _HEAT = (0, 0.5, 1), ((0, 0, 0.2), (0.2, 0.45, 0.9), (1, 1, 1))  # blue, green, red


def recognise_file(job: RecogniseFile, control: Control) -> Iterator[Event]:
    """Ask models about every slice with lung of a scan.

    Raises
    ------
    ScanError
        If the scan cannot be read, or the picture not be written.
    ModelError
        If a model cannot be used, or there is none that has learned from such scans.
    JobError
        If the heat map is to have another ending than that of a PNG file.
    """
    if job.heat_map is not None and not job.heat_map.lower().endswith(".png"):
        raise JobError(f"{job.heat_map} is no name for a picture of the heat map; let it end in .png.")

    def load() -> tuple[Scan, Appearance, list[Asked]]:
        scan = read_scan(job.path, series=job.series, values=job.values)
        appearance = look_at(scan).overruled(**dict(job.seen_as))
        names = job.models or _by_default(appearance)
        return scan, appearance, asked_about(names, appearance, scan.window, job.device)

    scan, appearance, asked = yield from in_thread(load, lambda: Progress(0, 0, "slices"))
    name, count = scan.name or Path(job.path).name, len(scan.voxels)
    for note in scan.notes:
        yield Notice(note)
    yield from told(name, asked, {})
    hottest: dict[str, tuple[float, Answer]] = {}

    def keep(card: ModelCard, answer: Answer) -> str:
        first = answer.probabilities[0]
        if answer.heat is not None and first >= hottest.get(card.id, (0.0, answer))[0]:
            hottest[card.id] = first, answer
        return ""

    answers: dict[str, npt.NDArray[np.float64]] = {}
    order = SliceOrder(count, count // 2)
    control.on_focus(order.refocus)
    yield from ask(
        scan.voxels.__getitem__,
        asked,
        order,
        lambda _, slice_: shows_lung(slice_, appearance),
        answers,
        job.heat_map is not None,
        keep,
    )
    for one in asked:
        if one.recogniser is not None:
            yield scan_recognised(name, one, of_scan(one.card, answers[one.card.id]))
    if job.heat_map is not None:
        drawn = next((hottest[one.card.id][1] for one in asked if one.card.id in hottest), None)
        if drawn is None:
            yield Notice("No heat map was written: no model was asked about a slice.")
            return
        _write(job.heat_map, heat_picture(scan, appearance, drawn))
        yield Written(job.heat_map)


def heat_picture(scan: Scan, appearance: Appearance, answer: Answer) -> npt.NDArray[np.uint8]:
    """Return a slice and beside it the same under the heat map of the first output, BGR (y, x, 3)."""
    slice_ = scan.voxels[answer.z]
    shown = LUNG_WINDOW if scan.intensity == "HU" else scan.window or (0, 2**appearance.bits - 1)
    grey: Any = in_window(slice_, shown)
    wide = max(1, round(grey.shape[1] * _HEIGHT / grey.shape[0]))
    grey = cv2.cvtColor(cv2.resize(grey, (wide, _HEIGHT), interpolation=cv2.INTER_AREA), cv2.COLOR_GRAY2BGR)
    assert answer.heat is not None
    share = cv2.resize(answer.heat[0], (wide, _HEIGHT), interpolation=cv2.INTER_LINEAR) / 255
    # as the layer in the viewer: cold is clear, so that what lies beneath can be read
    colour = np.stack([np.interp(share, _SHARES, channel) for channel in _HEAT], -1)
    dense = np.interp(share, _SHARES, (0, 0.3, 0.55))[..., np.newaxis]
    under = np.rint(grey * (1 - dense) + 255 * colour * dense).astype(np.uint8)
    return np.hstack([grey, np.full((_HEIGHT, 8, 3), 255, np.uint8), under])


def _by_default(appearance: Appearance) -> tuple[str, ...]:
    """Return the first model of each task that has learned from such scans; else any, which says why not."""
    modality = modality_of(appearance)
    names = []
    for task in TASKS:
        entries = available(task)
        entry = suited(entries, modality)
        if entry is None and task == "recognition" and modality is None and entries:
            entry = entries[0]
        if entry is not None:
            names.append(entry.card.id)
    return tuple(names)


def _write(path: str, picture: npt.NDArray[np.uint8]) -> None:
    written, png = cv2.imencode(".png", picture)
    assert written
    try:
        write_bytes(Path(os.path.expanduser(path)), png.tobytes())
    except OSError as error:
        raise ScanError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
