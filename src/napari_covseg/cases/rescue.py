"""Strokes that the workspace cannot take go into a file outside of it, and come back by themselves."""

from __future__ import annotations

import getpass
import os
import re
import secrets
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs

from napari_covseg.cases.case import Case, now
from napari_covseg.cases.open_case import OpenCase, Restored
from napari_covseg.cases.revision import Packed, Record, SliceEdit, SliceState
from napari_covseg.cases.store import FORMAT, reading, writing
from napari_covseg.errors import CaseError
from napari_covseg.labels import Group

SUFFIX = ".covseg-strokes"
BROUGHT_BACK = ".brought-back"
"""Ends the name of a file whose strokes are in their case again."""


@dataclass(frozen=True)
class Saved:
    """Strokes that are not in their case but in a file.

    Attributes
    ----------
    path : Path
    reason : str
        Why, in one sentence.
    """

    path: Path
    reason: str


@dataclass(frozen=True)
class BroughtBack:
    """What came back into a case when it was opened.

    Attributes
    ----------
    changes : int
        Revisions that the case did not have.
    files : tuple of Path
        Files that brought them, as they are called now.
    problems : tuple of str
        What did not come back, or is not on disk yet; one or two sentences each.
    """

    changes: int
    files: tuple[Path, ...]
    problems: tuple[str, ...]


# --- out of the workspace ----------------------------------------------------------------


def folders() -> list[Path]:
    """Return the folders that strokes are saved in, the best one first; they may not exist."""
    places = [Path(platformdirs.user_data_dir("napari-covseg", appauthor=False)) / "rescued"]
    with suppress(RuntimeError):  # not everybody has a home
        places.append(Path.home() / "napari-covseg-rescued")
    with suppress(OSError, KeyError):  # there may be no folder of temporary files that can be written
        places.append(Path(tempfile.gettempdir()) / f"napari-covseg-rescued-{getpass.getuser()}")
    return places


def save(case: OpenCase, folder: str | os.PathLike[str]) -> Path:
    """Save what a session has changed into a file outside of the workspace.

    For when the workspace cannot be written: its disk is full, read-only or gone. The
    file holds the revisions that are not on disk, and how the slices that the session
    has changed are now. The case stays as it is, and `bring_back` brings the file back.

    Parameters
    ----------
    case : OpenCase
    folder : path-like
        Where to put the file; made if it is missing.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    CaseError
        If that folder cannot be written either, or if the case is read-only.
    """
    case.check_editable()
    known, mark = case.case, secrets.token_hex(6)
    extra = {"format": FORMAT, "id": mark, "case": case.id, "name": known.name, "shape": list(known.shape)}
    if known.folder is not None:
        extra["workspace"] = str(known.folder.absolute().parents[1])  # its drive may be gone: not resolved
    empty = np.zeros(known.shape[1:], np.uint8), np.zeros(known.shape[1:], np.uint8)
    state = Record(case.revision, now(), "", "state", extra=extra)
    for group, z in sorted(case.changed):
        slices = case.live[group][z], case.touched[group][z]
        state.parts.append(Packed.of(SliceEdit.between(group, z, empty, slices)))
    state.review = [(z, 0, int(review)) for z, review in enumerate(case.review)]
    records = [state, *case.log.unsaved()]
    name = re.sub(r"[^\w.-]", "_", case.id)
    path = Path(folder).expanduser().absolute() / f"{name}-{state.when:%Y%m%d-%H%M%S}-{mark[:4]}{SUFFIX}"
    unfinished = path.with_suffix(".partial")  # a disk may fill up halfway
    with writing("the session's strokes", path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(unfinished, "xb") as file:
                for record in records:
                    file.write(record.encode())
                file.flush()
                os.fsync(file.fileno())
            unfinished.rename(path)
        except OSError:
            with suppress(OSError):
                unfinished.unlink()
            raise
    return path


def close_or_save(case: OpenCase) -> Saved | None:
    """Close a case; if its workspace cannot be written, save its strokes elsewhere before.

    Returns
    -------
    Saved or None
        The file, None if everything is in the case.

    Raises
    ------
    CaseError
        If the strokes can be saved nowhere; the case is then still open.
    """
    try:
        case.close()
        return None
    except Exception as error:  # a fault of this package costs no strokes either
        reason = str(error)
    places = folders()
    for folder in places:
        with suppress(OSError):  # saving says what is wrong
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(CaseError):
            path = save(case, folder)
            case.close(discard=True)
            return Saved(path, reason)
    where = ", ".join(map(str, places))
    raise CaseError(
        f'{reason} The strokes in "{case.case.name}" cannot be saved in {where} either: '
        "free some space, or save them in a folder that can be written."
    )


# --- and back ----------------------------------------------------------------------------


def bring_back(case: OpenCase, path: str | os.PathLike[str]) -> list[Restored]:
    """Bring back what `save` has saved; a file that is in the case already changes nothing.

    The revisions that were not saved are added as they were made. If the case has gone
    on without them, or if more was lost, the slices become what they were in the file, as
    a revision of its own, so that nothing that came meanwhile is lost either.

    Returns
    -------
    list of Restored
        What is new in `live`, slice by slice.

    Raises
    ------
    CaseError
        If the file is damaged, belongs to another case, or if this one is read-only.
    """
    case.check_editable()
    state, *revisions = _read(Path(path), case.case)
    with suppress(CaseError):  # in memory they are in the next file that is saved elsewhere
        case.flush()
    history, mark = case.history(), f"file {(state.extra or {})['id']}"
    known = {(revision.when, revision.tool) for revision in history}
    new = [record for record in revisions if (record.when, record.tool) not in known]
    if any(revision.note == mark for revision in history) or (revisions and revisions[-1] not in new):
        return []
    follows = bool(new) and new[0].number == case.revision + 1
    changes = case.adopt(new) if follows else []
    slices: dict[tuple[Group, int], SliceState] = {}
    for part in state.parts:
        shape = case.case.shape[1:]
        slices[part.group, part.z] = np.zeros(shape, np.uint8), np.zeros(shape, np.uint8)
        part.unpack().apply(slices[part.group, part.z])
    review = case.review.copy()
    seen = {z for _, z in slices} | {z for record in revisions for z, _, _ in record.review}
    for z, _, then in state.review:
        if z in seen:
            review[z] = then
    return [*changes, *case.become(slices, review, "rescue", mark, always=False)]


def waiting(case_id: str) -> list[Path]:
    """Return the files in all `folders` with strokes of a case, the oldest first."""
    name = re.compile(rf"{re.escape(case_id)}-(\d{{8}}-\d{{6}})-[0-9a-f]+{re.escape(SUFFIX)}")
    found = []
    for folder in folders():
        with suppress(OSError):
            for path in folder.iterdir():
                match = name.fullmatch(path.name)
                # anybody may put a file among the temporary ones
                if match is not None and _is_own(path):
                    found.append((match[1], path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found)]


def bring_back_waiting(case: OpenCase) -> BroughtBack:
    """Bring back what waits in the `folders` for a case; before anybody draws in it.

    A file whose strokes are in the case and on disk is renamed, so that it is not looked at
    again. One that is damaged stays as it is, and so does one from another workspace that has
    the case as well, of which this one is a copy.

    Parameters
    ----------
    case : OpenCase
        Open for editing.
    """
    files: list[Path] = []
    problems: list[str] = []
    first = case.revision
    for path in waiting(case.id):
        elsewhere = _original_of(path, case.case)
        if elsewhere is not None:
            problems.append(
                f'The strokes in {path} wait for "{case.case.name}" in {elsewhere}, of which this is a copy: '
                "open it there, or bring that file back here by hand."
            )
            continue
        before = case.revision
        try:
            bring_back(case, path)
        except CaseError as error:
            problems.append(
                f"Strokes that were saved elsewhere did not come back: {error} The file stays there."
            )
            continue
        try:
            case.flush()
        except CaseError as error:
            problems.append(
                f"Strokes that were saved in {path} are back but not saved in the case: {error} "
                "The file stays there."
            )
            continue
        with suppress(OSError):  # looking at it again would do no harm
            path = path.rename(path.with_name(path.name + BROUGHT_BACK))
        if case.revision > before:
            files.append(path)
    return BroughtBack(case.revision - first, tuple(files), tuple(problems))


def _read(path: Path, case: Case) -> list[Record]:
    """Return the state and the revisions that a file holds."""
    with reading("The file of strokes", path):
        records = list(Record.scan(path.read_bytes()))
    if not records or records[0].tool != "state" or not records[0].extra:
        raise CaseError(f"{path} holds no strokes that can be read: choose a file that was saved elsewhere.")
    extra = records[0].extra
    if extra["format"] > FORMAT:
        raise CaseError(f"{path} was made by a newer napari-covseg: update napari-covseg to open it.")
    if extra["case"] != case.id or tuple(extra["shape"]) != case.shape:
        raise CaseError(f'{path} belongs to case "{extra["name"]}" ({extra["case"]}): open that one first.')
    return records


def _original_of(path: Path, case: Case) -> Path | None:
    """Return the other workspace that a file was saved from and that has its case still, if there is one."""
    record = None
    with suppress(OSError):
        record = next(Record.scan(path.read_bytes()), None)
    if record is None or case.folder is None or "workspace" not in (record.extra or {}):
        return None
    workspace = Path((record.extra or {})["workspace"])
    there = workspace / "cases" / case.id
    try:
        copied = (there / "zarr.json").exists() and not there.samefile(case.folder)
    except OSError:  # a drive that does not answer has not lost its cases
        copied = True
    return workspace if copied else None


def _is_own(path: Path) -> bool:
    if sys.platform == "win32":
        return True  # where everybody has a folder of temporary files
    return path.stat().st_uid == os.getuid()
