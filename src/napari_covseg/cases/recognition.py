"""A recognition: what one model said each slice of a case shows, and the case as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.chunks import checksum
from napari_covseg.cases.prediction import free_name, stored_array
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    check_format,
    create_slices,
    has_slice,
    read_slice,
    reading,
    where,
    write_slice,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.labels import Task

FOLDER = "recognitions"
"""Of a case; one that no model was asked about has none."""


@dataclass(frozen=True)
class RecognitionInfo:
    """What a recognition was made with, and what came of it.

    Attributes
    ----------
    id, model_id : str
    task : {"recognition", "manifestations"}
    outputs : tuple of str
        What the probabilities are of.
    created : datetime
        When it began, UTC.
    settings : dict
        As JSON: among them ``modality``, what the case was taken for, ``thresholds`` by output, and ``shown``
        and ``caution``, whether the answer may be shown as a finding and what is said with it.
    revision : int
        State of the person's corrections that it saw.
    heat_maps : tuple of int, or None
        Height and width of the heat maps, if they are kept.
    finished : bool
        Whether it went to its end.
    scan : tuple of float
        Probabilities of the scan as a whole; none before the end, or where no slice has lung.
    shares : tuple of float
        Of manifestations, in which share of the slices each was found.
    """

    id: str
    model_id: str
    task: Task
    outputs: tuple[str, ...]
    created: datetime
    settings: dict[str, Any]
    revision: int
    heat_maps: tuple[int, int] | None
    finished: bool
    scan: tuple[float, ...]
    shares: tuple[float, ...]


class Recognition:
    """One recognition's arrays. One process writes them, any may read them meanwhile.

    A slice counts once its probabilities are there, which are written after its heat maps. With the end come
    their number and their checksum: one that lost a slice afterwards is never taken for whole.

    Parameters
    ----------
    group : zarr.Group
        ``recognitions/<recognition>`` of a case.

    Raises
    ------
    CaseError
        If the group is no recognition, or of a newer format.
    """

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        check_format(group, "recognition")
        self.id = group.basename
        with reading("The recognition", where(group)):
            self._probabilities = stored_array(group, "probabilities")
            self._heat = stored_array(group, "heat_maps") if "heat_maps" in group else None

    @property
    def info(self) -> RecognitionInfo:
        """What it was made with, read when it was opened, and what came of it."""
        own = check_format(self._group, "recognition")
        with reading("The recognition", where(self._group)):
            return RecognitionInfo(
                id=self.id,
                model_id=own["model_id"],
                task=own["task"],
                outputs=tuple(own["outputs"]),
                created=datetime.fromisoformat(own["created"]),
                settings=own["settings"],
                revision=own["revision"],
                heat_maps=None if self._heat is None else (self._heat.shape[2], self._heat.shape[3]),
                finished=own["finished"],
                scan=tuple(own.get("scan", ())),
                shares=tuple(own.get("shares", ())),
            )

    def write_slice(
        self, z: int, probabilities: Sequence[float], heat: npt.NDArray[np.uint8] | None = None
    ) -> None:
        """Write what is said of a slice.

        Parameters
        ----------
        z : int
        probabilities : sequence of float
            In the order of the outputs; NaN where the slice was not asked about.
        heat : ndarray of uint8, shape (outputs, h, w), optional
            Of the whole slice; nothing where it was not asked about, or where no heat maps are kept.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        if heat is not None and self._heat is not None:
            write_slice(self._heat, z, heat)
        write_slice(self._probabilities, z, np.array(probabilities, np.float32)[:, np.newaxis])

    def read_probabilities(self) -> npt.NDArray[np.float32]:
        """Return the probabilities of all slices, (z, outputs); NaN where there are none.

        Raises
        ------
        CaseError
            If one is damaged, or if one is missing since the recognition was finished.
        """
        count, outputs, _ = self._probabilities.shape
        values = np.full((count, outputs), np.nan, np.float32)
        there = 0
        for z in range(count):
            row = read_slice(self._probabilities, z)
            if row is not None:
                values[z], there = row[:, 0], there + 1
        own = check_format(self._group, "recognition")
        if own["finished"] and (there, checksum(values)) != (own.get("slices"), own.get("checksum")):
            raise CaseError(f"{where(self._group)} is not whole any more: recognise the scan again.")
        return values

    def is_done(self, z: int) -> bool:
        """Whether a slice is complete, read from disk."""
        return has_slice(self._probabilities, z)

    def read_heat(self, z: int) -> npt.NDArray[np.uint8] | None:
        """Return the heat maps of a slice, uint8 (outputs, h, w), which cover it as a whole.

        The brightest place of one is as bright as its output is likely, and 255 is certain. None where there
        are none. Raises CaseError if they are damaged.
        """
        return None if self._heat is None else read_slice(self._heat, z)

    def finish(self, scan: Sequence[float], shares: Sequence[float] = ()) -> None:
        """Mark the recognition as gone to its end, with what is said of the scan as a whole."""
        values = self.read_probabilities()
        done = sum(self.is_done(z) for z in range(len(values)))
        own = {
            **check_format(self._group, "recognition"),
            "finished": True,
            "scan": list(scan),
            "shares": list(shares),
            "slices": done,
            "checksum": checksum(values),
        }
        with writing("the recognition", where(self._group)):
            self._group = self._group.update_attributes({KEY: own})


def create_recognition(
    case: zarr.Group,
    count: int,
    model_id: str,
    task: Task,
    outputs: Sequence[str],
    settings: dict[str, Any],
    revision: int,
    heat_maps: tuple[int, int] | None,
) -> Recognition:
    """Create an empty recognition; see `Case.begin_recognition`. Its attributes come last and make it one."""
    now = datetime.now(UTC)
    with writing("the new recognition", where(case)):
        folder = case.require_group(FOLDER)
        group = folder.create_group(free_name(folder, now))
        shape = (count, len(outputs), 1)
        create_slices(group, "probabilities", shape, np.float32, ("z", "output", "probability"))
        if heat_maps is not None:
            create_slices(
                group, "heat_maps", (len(outputs), count, *heat_maps), np.uint8, ("c", "z", "y", "x")
            )
        own = {
            "kind": "recognition",
            "format": FORMAT,
            "model_id": model_id,
            "task": task,
            "outputs": list(outputs),
            "created": now.isoformat(),
            "settings": settings,
            "revision": revision,
            "finished": False,
        }
        return Recognition(group.update_attributes({KEY: own}))
