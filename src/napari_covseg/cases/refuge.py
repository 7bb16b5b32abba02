"""Where strokes go when the workspace cannot be written, and from where they come back by themselves."""

from __future__ import annotations

import getpass
import os
import re
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import SUFFIX, original_of
from napari_covseg.errors import CaseError

BROUGHT_BACK = ".brought-back"
"""Ends the name of a file whose strokes are in their case again."""


@dataclass(frozen=True)
class Kept:
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
class Returned:
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


def refuges() -> list[Path]:
    """Return the folders that strokes are saved in, the best one first; they may not exist."""
    places = [Path(platformdirs.user_data_dir("napari-covseg", appauthor=False)) / "rescued"]
    with suppress(RuntimeError):  # not everybody has a home
        places.append(Path.home() / "napari-covseg-rescued")
    with suppress(OSError, KeyError):  # there may be no folder of temporary files that can be written
        places.append(Path(tempfile.gettempdir()) / f"napari-covseg-rescued-{getpass.getuser()}")
    return places


def save(case: OpenCase) -> Path:
    """Save what a session has changed in the first refuge that can be written.

    Parameters
    ----------
    case : OpenCase

    Returns
    -------
    Path
        The file, as from `OpenCase.save_elsewhere`.

    Raises
    ------
    CaseError
        If none of them can be written, or if the case is read-only.
    """
    places = refuges()
    for folder in places:
        with suppress(OSError):  # saving says what is wrong
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(CaseError):
            return case.save_elsewhere(folder)
    where = ", ".join(map(str, places))
    raise CaseError(
        f'The strokes in "{case.case.name}" cannot be saved in {where} either: '
        "free some space, or save them in a folder that can be written."
    )


def close_or_save(case: OpenCase) -> Kept | None:
    """Close a case; if its workspace cannot be written, save its strokes in a refuge before.

    Returns
    -------
    Kept or None
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
    try:
        path = save(case)
    except CaseError as error:
        raise CaseError(f"{reason} {error}") from error
    case.close(discard=True)
    return Kept(path, reason)


def waiting(case_id: str) -> list[Path]:
    """Return the files in all refuges with strokes of a case, the oldest first."""
    name = re.compile(rf"{re.escape(case_id)}-(\d{{8}}-\d{{6}})-[0-9a-f]+{re.escape(SUFFIX)}")
    found = []
    for folder in refuges():
        with suppress(OSError):
            for path in folder.iterdir():
                match = name.fullmatch(path.name)
                # anybody may put a file among the temporary ones
                if match is not None and _is_own(path):
                    found.append((match[1], path.stat().st_mtime_ns, path))
    return [path for _, _, path in sorted(found)]


def bring_back(case: OpenCase) -> Returned:
    """Bring back what waits in the refuges for a case; before anybody draws in it.

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
        elsewhere = original_of(path, case.case)
        if elsewhere is not None:
            problems.append(
                f'The strokes in {path} wait for "{case.case.name}" in {elsewhere}, of which this is a copy: '
                "open it there, or bring that file back here by hand."
            )
            continue
        before = case.revision
        try:
            case.rescue(path)
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
        now = _done_with(path)
        if case.revision > before:
            files.append(now)
    return Returned(case.revision - first, tuple(files), tuple(problems))


def _is_own(path: Path) -> bool:
    if sys.platform == "win32":
        return True  # where everybody has a folder of temporary files
    return path.stat().st_uid == os.getuid()


def _done_with(path: Path) -> Path:
    """Rename a file, if its folder can be written; looking at it again would do no harm."""
    try:
        return path.rename(path.with_name(path.name + BROUGHT_BACK))
    except OSError:
        return path
