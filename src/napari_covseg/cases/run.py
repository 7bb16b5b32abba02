"""A prediction run: what one model said about a case, slice by slice."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    check_format,
    create_record,
    create_slices,
    read_record,
    read_slice,
    reading,
    where,
    write_record,
    write_slice,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

_STATE, _FIRST, _FINAL = 0, 1, 2


@dataclass(frozen=True)
class RunInfo:
    """What a run was made with.

    Attributes
    ----------
    id, model_id : str
    created : datetime
        When it began, UTC.
    settings : dict
        The model's settings for this run, as JSON.
    class_names : tuple of str
        Names of the channels of `probabilities`.
    revision : int
        State of the person's corrections that the run saw.
    probabilities : bool
        Whether probabilities are kept.
    finished : bool
        Whether the run went to its end.
    """

    id: str
    model_id: str
    created: datetime
    settings: dict[str, Any]
    class_names: tuple[str, ...]
    revision: int
    probabilities: bool
    finished: bool


class Run:
    """One run's arrays. One process writes them, any may read them meanwhile.

    A slice counts as done only after its arrays are written, by a record with the
    checksum of each; a chunk that is missing (which zarr reads as zeros) or that does not
    fit the record is never taken for data.

    Parameters
    ----------
    group : zarr.Group
        ``predictions/<run>`` of a case.

    Raises
    ------
    CaseError
        If the group is no run, or of a newer format.
    """

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        check_format(group, "run")
        self.id = group.basename
        with reading("The prediction", where(group)):
            self._labels: dict[Group, zarr.Array[Any]] = {name: _array(group, name) for name in GROUPS}
            self._record = _array(group, "done")
        self._probabilities = _array(group, "probabilities") if self.info.probabilities else None
        self._written: npt.NDArray[np.uint32] | None = None

    @property
    def info(self) -> RunInfo:
        """What the run was made with."""
        own = check_format(self._group, "run")
        return RunInfo(
            id=self.id,
            model_id=own["model_id"],
            created=datetime.fromisoformat(own["created"]),
            settings=own["settings"],
            class_names=tuple(own["class_names"]),
            revision=own["revision"],
            probabilities=own["probabilities"],
            finished=own["finished"],
        )

    @property
    def finished(self) -> bool:
        """Whether the run went to its end, read from disk."""
        return Run(zarr.open_group(self._group.store_path, mode="r")).info.finished

    @property
    def done(self) -> npt.NDArray[np.bool_]:
        """Which slices are complete, shape (z,), read from disk."""
        return self._read_record()[:, 0, _STATE] > 0

    def write_slice(
        self,
        z: int,
        lungs: npt.NDArray[np.uint8],
        lesions: npt.NDArray[np.uint8],
        probabilities: npt.NDArray[np.uint8] | None = None,
    ) -> None:
        """Write one slice, then record it as done.

        Parameters
        ----------
        z : int
        lungs, lesions : ndarray of uint8, shape (y, x)
        probabilities : ndarray of uint8, shape (class, y, x), optional
            255 is certain. Needed if and only if the run keeps them.

        Raises
        ------
        CaseError
            If the disk is full or the folder is read-only.
        """
        if (probabilities is None) != (self._probabilities is None):
            raise ValueError("probabilities have to be given if and only if the run keeps them")
        record = self._own_record()
        if record[z, 0, _STATE]:  # a second try: until it is whole, the slice is not done
            record[z] = 0
            self._write_record(record)
        row = np.zeros(record.shape[1:], np.uint32)
        row[:, _STATE] = 1
        for index, (group, values) in enumerate(zip(GROUPS, (lungs, lesions), strict=True)):
            write_slice(self._labels[group], z, values)
            row[index, _FIRST:] = _checksum(values)
        if probabilities is not None and self._probabilities is not None:
            write_slice(self._probabilities, z, probabilities)
        record[z] = row
        self._write_record(record)

    def write_final(self, group: Group, z: int, values: npt.NDArray[np.uint8]) -> None:
        """Write the last word on a slice that is already done, shape (y, x).

        The new checksum is recorded first: whichever of the two versions an interruption
        leaves on disk fits the record.
        """
        record = self._own_record()
        index = list(GROUPS).index(group)
        if not record[z, index, _STATE]:
            raise ValueError(f"slice {z} has no prediction yet")
        current = read_slice(self._labels[group], z)
        assert current is not None
        record[z, index, _FIRST:] = _checksum(current), _checksum(values)
        self._write_record(record)
        write_slice(self._labels[group], z, values)

    def read_slice(self, z: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
        """Return lungs and lesions of a slice, each uint8 (y, x).

        Raises
        ------
        CaseError
            If the slice is not done yet, is missing, or does not fit its checksum.
        """
        row = self._read_record()[z]
        if not row[0, _STATE]:
            raise CaseError(f"Slice {z} of {where(self._group)} is not predicted yet: run the model.")
        lungs, lesions = (self._checked(group, z, row[index]) for index, group in enumerate(GROUPS))
        return lungs, lesions

    def read_probabilities(self, z: int) -> npt.NDArray[np.uint8] | None:
        """Return the probabilities of a slice, uint8 (class, y, x), or None if not kept."""
        if self._probabilities is None:
            return None
        values = read_slice(self._probabilities, z)
        if values is None:
            raise CaseError(f"Slice {z} of {where(self._probabilities)} is missing: predict again.")
        return values

    def finish(self) -> None:
        """Mark the run as gone to its end."""
        own = {**check_format(self._group, "run"), "finished": True}
        with writing("the run", where(self._group)):
            self._group = self._group.update_attributes({KEY: own})

    def _checked(self, group: Group, z: int, row: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        values = read_slice(self._labels[group], z)
        if values is None or _checksum(values) not in (row[_FIRST], row[_FINAL]):
            raise CaseError(
                f"Slice {z} of {where(self._labels[group])} is missing or damaged: predict again."
            )
        return values

    def _own_record(self) -> npt.NDArray[np.uint32]:
        """The writer's copy of the record: it alone writes, so it need not read back."""
        if self._written is None:
            self._written = self._read_record()
        return self._written

    def _read_record(self) -> npt.NDArray[np.uint32]:
        return read_record(self._record, "The record of finished slices")

    def _write_record(self, record: npt.NDArray[np.uint32]) -> None:
        write_record(self._record, record, "the record of finished slices")


def create_run(
    predictions: zarr.Group,
    shape: tuple[int, int, int],
    model_id: str,
    settings: dict[str, Any],
    class_names: Sequence[str],
    revision: int,
    *,
    probabilities: bool,
) -> Run:
    """Create an empty run; see `Case.begin_run`. Its attributes come last and make it one."""
    now = datetime.now(UTC)
    with writing("the new prediction", where(predictions)):
        group = predictions.create_group(_free_name(predictions, now))
        for name in GROUPS:
            create_slices(group, name, shape, np.uint8)
        if probabilities:
            full = (len(class_names), *shape)
            create_slices(group, "probabilities", full, np.uint8, ("c", "z", "y", "x"))
        record_shape = (shape[0], len(GROUPS), 3)
        create_record(group, "done", record_shape, np.uint32, ("z", "group", "state"))
        own = {
            "kind": "run",
            "format": FORMAT,
            "model_id": model_id,
            "created": now.isoformat(),
            "settings": settings,
            "class_names": list(class_names),
            "revision": revision,
            "probabilities": probabilities,
            "finished": False,
        }
        return Run(group.update_attributes({KEY: own}))


def _free_name(predictions: zarr.Group, now: datetime) -> str:
    stem = now.strftime("%Y%m%d-%H%M%S-%f")
    name, count = stem, 1
    while name in predictions:
        name, count = f"{stem}-{count}", count + 1
    return name


def _array(group: zarr.Group, name: str) -> zarr.Array[Any]:
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise KeyError(name)
    return array.with_config({"write_empty_chunks": True})


def _checksum(values: npt.NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values).data)
