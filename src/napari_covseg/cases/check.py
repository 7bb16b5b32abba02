"""Looks at everything in a workspace and says what is damaged, and what to do; changes nothing."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    check = _Check(workspace)
    for done, name in enumerate([*cases, *models]):
        if progress is not None:
            progress(done, len(cases) + len(models))
        (check.case if done < len(cases) else check.model)(name)
    check.leftovers()
    return check.findings


class _Check:
    """Reads everything of a workspace and collects what is found."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.findings: list[Finding] = []

    def case(self, case_id: str) -> None:
        with self._reading(f"{self._workspace.path}/cases/{case_id}", _RESTORE):
            case = self._workspace.case(case_id)
            holder = case.held_by()
            if holder:
                self._note(case.path, f"it is open by {holder}", "check again when it is closed")
            self._arrays(case)
            self._predictions(case)
            self._recognitions(case)
            self._history(case, chain=not holder)
            for path in sorted(case.folder.rglob("*.damaged")) if case.folder is not None else ():
                what = "these are the bytes of a slice that was damaged and then corrected anew"
                self._note(str(path), what, "delete them when the corrections are as they should be")

    def model(self, name: str) -> None:
        """Look at a model without knowing what models are made of: all its groups and arrays."""
        root = self._workspace.group
        place, path = f"{root.path}/models/{name}".lstrip("/"), f"{where(root)}/models/{name}"
        advice = "use the version that it came from, or restore it from a backup"
        with self._reading(path, advice), reading("The model", path):
            found = zarr.open_group(root.store, path=place, mode="r")
            own = found.attrs.get(KEY)
            if isinstance(own, dict):
                check_format(found, str(own.get("kind")))
            for _, array in found.members(None):
                if isinstance(array, zarr.Array):
                    name = array.path.removeprefix(place).lstrip("/")
                    self._chunks(array, f"{path}/{name}", advice)

    def leftovers(self) -> None:
        incoming = Path(self._workspace.path, "incoming")
        if "://" not in self._workspace.path and incoming.is_dir() and any(incoming.iterdir()):
            what = "an import is under way or was interrupted"
            self._note(str(incoming), what, "the next import tidies up")

    def _arrays(self, case: Case) -> None:
        for z in range(case.shape[0]):
            with self._reading(f"{case.path}/0", "import the scan again, or restore that file from a backup"):
                case.read_slice(z)
        advice = "the case opens; the slice is made anew from its history, or empty if that is not whole"
        for name in (f"labels/{group}/{kind}" for group in GROUPS for kind in ("0", "touched")):
            path = f"{case.path}/{name}"
            with self._reading(path, _RESTORE):
                array = case.array(name)
                for z in range(case.shape[0]):
                    with self._reading(path, advice):
                        read_slice(array, z)
        for name in ("review", "activity"):
            with self._reading(f"{case.path}/{name}", "opening the case makes it anew from its history"):
                getattr(case, name)

    def _predictions(self, case: Case) -> None:
        names: list[str] = []
        with self._reading(f"{case.path}/predictions", _RESTORE):
            names = case.prediction_names()
        for name in names:
            path, advice = f"{case.path}/predictions/{name}", "predict again; the labels do not need it"
            with self._reading(path, advice):
                prediction = case.prediction(name)
                done = np.flatnonzero(prediction.done).tolist()
                if prediction.info.finished and len(done) < case.shape[0]:
                    what = f"it is finished, but only {len(done)} of {case.shape[0]} slices are recorded"
                    self._damaged(path, what, advice)
                for z in done:
                    for read in (
                        prediction.read_slice,
                        prediction.read_probabilities,
                        prediction.read_entropy,
                        prediction.read_uncertainty,
                    ):
                        with self._reading(path, advice):
                            read(z)

    def _recognitions(self, case: Case) -> None:
        names: list[str] = []
        with self._reading(f"{case.path}/recognitions", _RESTORE):
            names = case.recognition_names()
        for name in names:
            path, advice = f"{case.path}/recognitions/{name}", "recognise the scan again"
            with self._reading(path, advice):
                recognition = case.recognition(name)
                recognition.read_probabilities()
                for z in range(case.shape[0]):
                    with self._reading(path, advice):
                        recognition.read_heat(z)

    def _history(self, case: Case, *, chain: bool) -> None:
        """Look whether the history is whole and, unless somebody changes the case, leads to the labels."""
        path = f"{case.path}/history"
        with self._reading(path, _RESTORE):
            opened = OpenCase(self._workspace, case.id, read_only=True)
            missing = opened.log.history.missing()
            if missing:
                what = f"revision {', '.join(map(str, missing))} is missing or damaged"
                advice = "the labels are not affected; states before it are unsure where it changed something"
                self._damaged(path, what, advice)
            if chain:
                known = any(damage.what in ("labels", "touched") for damage in opened.damaged)
                self._links(opened, path, quiet=bool(missing) or known)

    def _links(self, opened: OpenCase, path: str, *, quiet: bool) -> None:
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
                self._damaged(path, f"revision {number} cannot be unpacked", _RESTORE)
                return
            if not fits and not quiet:
                what = f"revision {number} did not leave the labels that came after it"
                advice = "the labels were changed outside of napari-covseg; look at them before going on"
                self._damaged(path, what, advice)
                return

    def _chunks(self, array: zarr.Array[Any], path: str, advice: str) -> None:
        with self._reading(path, advice), reading("It", path):
            there = sorted(chunk_indices(array))
            if not there and array.nchunks:
                self._damaged(path, "its data is missing", advice)
            for index in there:
                with self._reading(path, advice), reading(f"Chunk {index}", path):
                    read_chunk(array, index)

    @contextmanager
    def _reading(self, path: str, advice: str) -> Iterator[None]:
        """Note down what is damaged, and do without what would have come after it."""
        try:
            yield
        except CaseError as error:
            # without what it advises, which is meant for a single case
            self._damaged(path, str(error).rstrip(".").rsplit(": ", 1)[0], advice)

    def _damaged(self, path: str, what: str, advice: str) -> None:
        self.findings.append(Finding("damaged", path, what, advice))

    def _note(self, path: str, what: str, advice: str) -> None:
        self.findings.append(Finding("note", path, what, advice))
