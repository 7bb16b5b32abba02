"""An open case's arrays: read into memory sparingly, brought up to date by the history."""

from __future__ import annotations

import math
import mmap
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import Activity, Case, now
from napari_covseg.cases.history import History
from napari_covseg.cases.ledger import Damage, Ledger
from napari_covseg.cases.store import DamagedError, read_slice
from napari_covseg.cases.writer import Key
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

T = TypeVar("T", np.uint8, np.bool_)
_AIR = -1024
_DamageByPlace = dict[tuple[str, str, int], Damage]


@dataclass
class Arrays:
    """What is in memory.

    Attributes
    ----------
    voxels : ndarray of int16, shape (z, y, x)
    live, touched : dict of ndarray
        uint8 and bool (z, y, x) by label group.
    review : ndarray of uint8, shape (z,)
    ledger : Ledger
        What writes them.
    stale : list of Key
        What an interruption has left behind on disk, and has to be written.
    """

    voxels: npt.NDArray[np.int16]
    live: dict[Group, npt.NDArray[np.uint8]]
    touched: dict[Group, npt.NDArray[np.bool_]]
    review: npt.NDArray[np.uint8]
    ledger: Ledger
    stale: list[Key]


def load_arrays(case: Case, *, read_only: bool) -> Arrays:
    """Read a case into memory; what is damaged is empty there and listed in the ledger.

    Revisions that are newer than the label slices are made again, so that the case is as
    after the last revision that is whole.

    Raises
    ------
    CaseError
        If the drive is gone, or if nothing of the scan can be read.
    """
    ledger = open_ledger(case)
    damaged = ledger.damaged
    voxels = _voxels(case, damaged)
    live = {group: _read(case.labels(group), np.uint8, "labels", group, damaged) for group in GROUPS}
    touched = {group: _read(case.touched(group), np.bool_, "touched", group, damaged) for group in GROUPS}
    _rebuild(ledger, live, touched)
    if not read_only:
        ledger.memory = {group: (live[group], touched[group]) for group in GROUPS}
    review = ledger.review.copy()
    stale: list[Key] = []
    for record in ledger.history.unsettled():
        for packed in record.parts:
            packed.unpack().apply(live[packed.group][packed.z], touched[packed.group][packed.z])
        for z, _, state in record.review:
            review[z] = state
        if not read_only:
            stale += ledger.apply_record(record)
    return Arrays(voxels, live, touched, review, ledger, stale)


def _rebuild(
    ledger: Ledger, live: dict[Group, npt.NDArray[np.uint8]], touched: dict[Group, npt.NDArray[np.bool_]]
) -> None:
    """Make slices that are damaged from the history, if it goes back to the case's beginning."""
    history = ledger.history
    lost = {(group, z) for what, group, z in ledger.damaged if what in ("labels", "touched")}
    if not lost or history.first != 1 or history.missing():
        return
    for group in GROUPS:
        for z in (z for name, z in lost if name == group):
            live[group][z] = touched[group][z] = 0
    for number in range(1, history.last + 1):
        record = history.read(number)
        for packed in record.parts if record is not None else ():
            if (packed.group, packed.z) in lost:
                packed.unpack().apply(live[packed.group][packed.z], touched[packed.group][packed.z])
    history.forget()
    for key, damage in ledger.damaged.items():
        if key[1:] in lost:
            text = damage.message.removesuffix(".").rsplit(": ", 1)[0]
            ledger.damaged[key] = replace(
                damage, message=f"{text}: it was made anew from the history.", rebuilt=True
            )


def settle(case: Case) -> Ledger:
    """Bring a case on disk up to its last revision; for who holds the lock.

    Raises
    ------
    CaseError
        If the disk is full, or the case cannot be read.
    """
    ledger = open_ledger(case)
    stale = {key for record in ledger.history.unsettled() for key in ledger.apply_record(record)}
    for key in sorted(stale):
        ledger.save(key)
    return ledger


def open_ledger(case: Case) -> Ledger:
    """Return what a case is written with, its review states as they are on disk. Raises CaseError."""
    damaged: _DamageByPlace = {}

    def tolerant(what: str, read: Callable[[], Any], otherwise: Callable[[], Any]) -> Any:
        """Read a record; note it down where it is damaged, and do without."""
        try:
            return read()
        except DamagedError as error:
            damaged[what, "", -1] = Damage(what, "", -1, str(error))
            return otherwise()

    review = tolerant("review", lambda: case.review, lambda: np.zeros(case.shape[0], np.uint8))
    activity = tolerant("activity", lambda: case.activity, lambda: Activity(now(), now(), 0))
    history = History(case, activity.revision)
    return Ledger(case, history, review, replace(activity, opened=now()), damaged)


def sparse_copy(memory: npt.NDArray[T]) -> npt.NDArray[T]:
    """Return a copy, (z, y, x), that takes memory only where it is not zero."""
    copy = sparse_zeros(memory.shape, memory.dtype.type)
    for to, values in zip(copy, memory, strict=True):
        if values.any():
            np.copyto(to, values, where=values != 0)
    return copy


def _voxels(case: Case, damaged: _DamageByPlace) -> npt.NDArray[np.int16]:
    voxels = np.empty(case.shape, np.int16)
    for z in range(case.shape[0]):
        try:
            voxels[z] = case.read_slice(z)
        except DamagedError as error:
            damaged["scan", "", z] = Damage("scan", "", z, str(error))
            voxels[z] = _AIR if case.intensity == "HU" else 0
    if case.shape[0] and sum(what == "scan" for what, _, _ in damaged) == case.shape[0]:
        raise CaseError(f"No slice of {case.path} can be read: restore it or import the scan again.")
    return voxels


def _read(
    array: zarr.Array[Any], dtype: type[T], what: str, group: Group, damaged: _DamageByPlace
) -> npt.NDArray[T]:
    """Read an array, (z, y, x), touching memory only where it is not zero."""
    memory = sparse_zeros(array.shape, dtype)
    for z in range(len(memory)):
        try:
            values = read_slice(array, z)
        except DamagedError as error:
            damaged[what, group, z] = Damage(what, group, z, str(error))
            continue
        if values is not None and values.any():
            np.copyto(memory[z], values, where=values != 0)
    return memory


def sparse_zeros(shape: tuple[int, ...], dtype: type[T]) -> npt.NDArray[T]:
    """Return zeros that take memory only where something is written, a few kB at a time.

    On Linux NumPy asks for pages of 2 MB, with which a few lesions cost as much memory as
    labels everywhere.
    """
    if sys.platform != "linux":
        return np.zeros(shape, dtype)
    private = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    return np.frombuffer(mmap.mmap(-1, math.prod(shape), flags=private), dtype).reshape(shape)
