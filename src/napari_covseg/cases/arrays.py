"""An open case's arrays: read into memory sparingly, written back slice by slice."""

from __future__ import annotations

import math
import mmap
import sys
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import Activity, Case, now
from napari_covseg.cases.store import read_slice, write_slice
from napari_covseg.cases.writer import Key
from napari_covseg.labels import GROUPS, Group

# Ranks of what is written, in this order: a voxel is known to be a person's before it is on disk.
TOUCHED, LABELS, REVIEW, ACTIVITY = range(4)

T = TypeVar("T", np.uint8, np.bool_)


@dataclass
class Arrays:
    """What is in memory and where it is kept; the writer's thread knows this and no more.

    Attributes
    ----------
    case : Case
    voxels : ndarray of int16, shape (z, y, x)
    live, touched : dict of ndarray
        uint8 and bool (z, y, x) by label group.
    review : ndarray of uint8, shape (z,)
    activity : Activity
    """

    case: Case
    voxels: npt.NDArray[np.int16]
    live: dict[Group, npt.NDArray[np.uint8]]
    touched: dict[Group, npt.NDArray[np.bool_]]
    review: npt.NDArray[np.uint8]
    activity: Activity

    def save(self, key: Key) -> None:
        """Write what `key` names: (rank, label group, slice). Raises CaseError."""
        rank, name, z = key
        group: Group = "lungs" if name == "lungs" else "lesions"
        if rank == TOUCHED:
            write_slice(self.case.touched(group), z, self.touched[group][z].copy())
        elif rank == LABELS:
            write_slice(self.case.labels(group), z, self.live[group][z].copy())
        elif rank == REVIEW:
            self.case.write_review(self.review.copy())
        else:
            self.case.write_activity(self.activity)


def load_arrays(case: Case) -> Arrays:
    """Read a case into memory. Raises CaseError."""
    return Arrays(
        case=case,
        voxels=case.read_voxels(),
        live={group: _read(case.labels(group), np.uint8) for group in GROUPS},
        touched={group: _read(case.touched(group), np.bool_) for group in GROUPS},
        review=case.review,
        activity=replace(case.activity, opened=now()),
    )


def _read(array: zarr.Array[Any], dtype: type[T]) -> npt.NDArray[T]:
    """Read an array, (z, y, x), touching memory only where it is not zero."""
    memory = _zeros(array.shape, dtype)
    for z in range(len(memory)):
        values = read_slice(array, z)
        if values is not None and values.any():
            np.copyto(memory[z], values, where=values != 0)
    return memory


def _zeros(shape: tuple[int, ...], dtype: type[T]) -> npt.NDArray[T]:
    """Return zeros that take memory only where something is written, a few kB at a time.

    On Linux NumPy asks for pages of 2 MB, with which a few lesions cost as much memory as
    labels everywhere.
    """
    if sys.platform != "linux":
        return np.zeros(shape, dtype)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return np.frombuffer(mmap.mmap(-1, math.prod(shape), flags=private), dtype).reshape(shape)
