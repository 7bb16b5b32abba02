"""Looks at everything in a workspace and says what is damaged, and what to do; changes nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import zarr

from napari_covseg.cases.case import Case
from napari_covseg.cases.chunks import chunk_indices, read_chunk
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.store import KEY, check_format, children, read_slice, reading, where
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group

Level = Literal["damaged", "note"]
_RESTORE = "restore it from a backup"


@dataclass(frozen=True)
class Finding:
    """Something in a workspace that a person should know.

    Attributes
    ----------
    level : {"damaged", "note"}
        Whether something is lost, or only worth knowing.
    path : str
        Where it lies.
    what : str
        What is found, without a full stop.
    advice : str
        What to do, without a full stop.
    """

    level: Level
    path: str
    what: str
    advice: str

    def __str__(self) -> str:
        return f"{self.path}: {self.what}; {self.advice}."


def check_workspace(
    path: str | os.PathLike[str], progress: Callable[[int, int], None] | None = None
) -> list[Finding]:
    """Read every chunk of a workspace and compare it with its checksum, the counts and the history.

    Parameters
    ----------
    path : path-like
        A folder, or a URL that fsspec understands.
    progress : callable, optional
        Called with cases and models done, and all; what it raises ends the check.

    Returns
    -------
    list of Finding
        Empty if all is well; cases in the order of their ids.

    Raises
    ------
    CaseError
        If there is no workspace, or if it is of a newer format.
    """
    workspace = Workspace.open(path, create=False)
    cases = children(workspace.group, "cases")
    models = children(workspace.group, "models") if "models" in workspace.group else []
    findings: list[Finding] = []
    for done, name in enumerate([*cases, *models]):
        if progress is not None:
            progress(done, len(cases) + len(models))
        findings += _case(workspace, name) if done < len(cases) else _model(workspace.group, name)
    return [*findings, *_leftovers(workspace.path)]


def _case(workspace: Workspace, case_id: str) -> Iterator[Finding]:
    try:
        case = workspace.case(case_id)
    except CaseError as error:
        yield Finding("damaged", f"{workspace.path}/cases/{case_id}", _words(error), _RESTORE)
        return
    holder = case.held_by()
    if holder:
        yield Finding("note", case.path, f"it is open by {holder}", "check again when it is closed")
    yield from _scan(case)
    for group in GROUPS:
        for name in (f"labels/{group}/0", f"labels/{group}/touched"):
            yield from _slices(case, name)
    for name, record in (("review", lambda: case.review), ("activity", lambda: case.activity)):
        yield from _tried(f"{case.path}/{name}", record, "opening the case makes it anew from its history")
    yield from _predictions(case)
    yield from _history(workspace, case, chain=not holder)
    yield from _kept_beside(case)


def _scan(case: Case) -> Iterator[Finding]:
    advice = "import the scan again, or restore that file from a backup"
    for z in range(case.shape[0]):
        yield from _tried(f"{case.path}/0", partial(case.read_slice, z), advice)


def _slices(case: Case, name: str) -> Iterator[Finding]:
    path = f"{case.path}/{name}"
    try:
        array = case.array(name)
    except CaseError as error:
        yield Finding("damaged", path, _words(error), _RESTORE)
        return
    advice = "the case opens; the slice is made anew from its history, or empty if that is not whole"
    for z in range(case.shape[0]):
        yield from _tried(path, partial(read_slice, array, z), advice)


def _predictions(case: Case) -> Iterator[Finding]:
    try:
        names = case.prediction_names()
    except CaseError as error:
        yield Finding("damaged", f"{case.path}/predictions", _words(error), _RESTORE)
        return
    for name in names:
        path, advice = f"{case.path}/predictions/{name}", "predict again; the labels do not need it"
        try:
            prediction = case.prediction(name)
            done = np.flatnonzero(prediction.done)
            if prediction.info.finished and len(done) < case.shape[0]:
                text = f"it is finished, but only {len(done)} of {case.shape[0]} slices are recorded"
                yield Finding("damaged", path, text, advice)
        except CaseError as error:
            yield Finding("damaged", path, _words(error), advice)
            continue
        for z in done.tolist():
            for read in (prediction.read_slice, prediction.read_probabilities, prediction.read_entropy):
                yield from _tried(path, partial(read, z), advice)


def _history(workspace: Workspace, case: Case, *, chain: bool) -> Iterator[Finding]:
    """Look whether the history is whole and, unless somebody is changing the case, leads to the labels."""
    path = f"{case.path}/history"
    try:
        opened = OpenCase(workspace, case.id, read_only=True)
        missing = opened.log.history.missing()
    except CaseError as error:
        yield Finding("damaged", path, _words(error), _RESTORE)
        return
    if missing:
        numbers = ", ".join(map(str, missing))
        advice = "the labels are not affected; states before it are unsure where it changed something"
        yield Finding("damaged", path, f"revision {numbers} is missing or damaged", advice)
    if chain:
        known = any(damage.what in ("labels", "touched") for damage in opened.damaged)
        yield from _broken_links(opened, path, quiet=bool(missing) or known)


def _broken_links(opened: OpenCase, path: str, *, quiet: bool) -> Iterator[Finding]:
    """Walk back, looking whether each revision left what is there; `quiet` if it cannot fit anyhow."""
    history = opened.log.history
    slices: dict[tuple[Group, int], npt.NDArray[np.uint8]] = {}
    for number in range(history.last, history.first - 1, -1):
        record, fits = history.read(number), True
        try:
            for part in reversed(record.parts if record is not None else []):
                if (part.group, part.z) not in slices:
                    slices[part.group, part.z] = opened.live[part.group][part.z].flatten()
                flat, edit = slices[part.group, part.z], part.unpack()
                fits &= np.array_equal(flat[edit.index], edit.after)
                flat[edit.index] = edit.before
        except (ValueError, zlib.error, IndexError, KeyError):
            yield Finding("damaged", path, f"revision {number} cannot be unpacked", _RESTORE)
            return
        if not fits and not quiet:
            advice = "the labels were changed outside of napari-covseg; look at them before going on"
            text = f"revision {number} did not leave the labels that came after it"
            yield Finding("damaged", path, text, advice)
            return


def _model(root: zarr.Group, name: str) -> Iterator[Finding]:
    """Look at a model without knowing what models are made of: all its groups and arrays."""
    place = f"{root.path}/models/{name}".lstrip("/")
    path = f"{where(root)}/models/{name}"
    advice = "use the version that it came from, or restore it from a backup"
    try:
        with reading("The model", path):
            found = zarr.open_group(root.store, path=place, mode="r")
            own = found.attrs.get(KEY)
            if isinstance(own, dict):
                check_format(found, str(own.get("kind")))
            arrays = [member for _, member in found.members(None) if isinstance(member, zarr.Array)]
    except CaseError as error:
        yield Finding("damaged", path, _words(error), advice)
        return
    for array in arrays:
        yield from _chunks(array, f"{path}/{array.path.removeprefix(place).lstrip('/')}", advice)


def _chunks(array: zarr.Array[Any], path: str, advice: str) -> Iterator[Finding]:
    try:
        with reading("It", path):
            there = chunk_indices(array)
    except CaseError as error:
        yield Finding("damaged", path, _words(error), advice)
        return
    if not there and array.nchunks:
        yield Finding("damaged", path, "its data is missing", advice)
    for index in sorted(there):

        def read(index: tuple[int, ...] = index) -> npt.NDArray[Any] | None:
            with reading(f"Chunk {index}", path):
                return read_chunk(array, index)

        yield from _tried(path, read, advice)


def _kept_beside(case: Case) -> Iterator[Finding]:
    folder = case.folder
    for path in sorted(folder.rglob("*.damaged")) if folder is not None else ():
        yield Finding(
            "note",
            str(path),
            "these are the bytes of a slice that was damaged and then corrected anew",
            "delete them when the corrections are as they should be",
        )


def _leftovers(path: str) -> Iterator[Finding]:
    incoming = Path(path, "incoming")
    if "://" not in path and incoming.is_dir() and any(incoming.iterdir()):
        yield Finding(
            "note", str(incoming), "an import is under way or was interrupted", "the next import tidies up"
        )


def _tried(path: str, read: Callable[[], object], advice: str) -> Iterator[Finding]:
    try:
        read()
    except CaseError as error:
        yield Finding("damaged", path, _words(error), advice)


def _words(error: CaseError) -> str:
    """Return what an error says without what it advises, which is meant for the one case."""
    return str(error).rstrip(".").rsplit(": ", 1)[0]
