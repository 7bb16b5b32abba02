"""Whether a case's history is whole and leads to the labels that there are."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from napari_covseg.cases.arrays import Arrays, load_arrays
from napari_covseg.cases.case import Case
from napari_covseg.cases.revision import Record
from napari_covseg.errors import CaseError
from napari_covseg.labels import Group

Fault = tuple[str, str, str]
"""(what is wrong, where, what to do)."""


def history_faults(case: Case, *, chain: bool) -> Iterator[Fault]:
    """Yield what is wrong with the history of a case.

    Parameters
    ----------
    case : Case
    chain : bool
        Also compare what each revision left with what the next one found, and the last one
        with the labels; not for a case that somebody is changing.
    """
    where = f"{case.path}/history"
    try:
        arrays = load_arrays(case, read_only=True)
        missing = arrays.ledger.history.missing()
    except CaseError as error:
        yield str(error).rstrip(".").rsplit(": ", 1)[0], where, "restore it from a backup"
        return
    if missing:
        numbers = ", ".join(map(str, missing))
        advice = "the labels are not affected; states before it are unsure where it changed something"
        yield f"revision {numbers} is missing or damaged", where, advice
    if chain:
        known = any(damage.what in ("labels", "touched") for damage in arrays.ledger.damaged.values())
        yield from _broken_links(arrays, where, quiet=bool(missing) or known)


def _broken_links(arrays: Arrays, where: str, *, quiet: bool) -> Iterator[Fault]:
    """Walk back, looking whether each revision left what is there; `quiet` if it cannot fit anyhow."""
    history = arrays.ledger.history
    slices: dict[tuple[Group, int], npt.NDArray[np.uint8]] = {}
    for number in range(history.last, history.first - 1, -1):
        record = history.read(number)
        try:
            fits = record is None or _walk_back(record, arrays, slices)
        except (ValueError, zlib.error, IndexError, KeyError):
            yield f"revision {number} cannot be unpacked", where, "restore it from a backup"
            return
        if not fits and not quiet:
            advice = "the labels were changed outside of napari-covseg; look at them before going on"
            yield f"revision {number} did not leave the labels that came after it", where, advice
            return


def _walk_back(
    record: Record, arrays: Arrays, slices: dict[tuple[Group, int], npt.NDArray[np.uint8]]
) -> bool:
    fits = True
    for packed in reversed(record.parts):
        key = packed.group, packed.z
        if key not in slices:
            slices[key] = arrays.live[packed.group][packed.z].copy()
        flat, part = slices[key].reshape(-1), packed.unpack()
        fits &= np.array_equal(flat[part.index], part.after)
        flat[part.index] = part.before
    return fits
