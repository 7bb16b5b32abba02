"""A workspace: one zarr store of cases and models."""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import platformdirs
import zarr
from zarr.errors import ContainsGroupError

from napari_covseg.cases.case import APPEARANCE, NEVER, OVERRIDES, Activity, Case, now
from napari_covseg.cases.lock import Lock
from napari_covseg.cases.store import (
    FORMAT,
    KEY,
    DamagedError,
    check_format,
    children,
    create_record,
    create_slices,
    reading,
    where,
    write_record,
    write_slice,
    writing,
)
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS, Group
from napari_covseg.scans.scan import LUNG_WINDOW, Scan
from napari_covseg.scans.stated import look_at

_log = logging.getLogger(__name__)
_OME_VERSION = "0.5"


@dataclass(frozen=True)
class CaseInfo:
    """A case in a list.

    Attributes
    ----------
    id, name : str
    shape : tuple of int
        Slices, rows and columns.
    modified : datetime
        When it was last opened or changed, UTC.
    patient_id : str
        Empty if unknown.
    """

    id: str
    name: str
    shape: tuple[int, int, int]
    modified: datetime
    patient_id: str


def default_workspace() -> Path:
    """Return where cases are kept unless one says otherwise: ``$COVSEG_WORKSPACE`` or user data."""
    named = os.environ.get("COVSEG_WORKSPACE")
    if named:
        return Path(named)
    return Path(platformdirs.user_data_dir("napari-covseg", appauthor=False)) / "workspace.zarr"


class Workspace:
    """A zarr v3 store with the groups ``cases`` and ``models``; see `Workspace.open`."""

    def __init__(self, group: zarr.Group) -> None:
        self._group = group
        check_format(group, "workspace")

    @classmethod
    def open(cls, path: str | os.PathLike[str] | None = None, *, create: bool = True) -> Workspace:
        """Open a workspace.

        Parameters
        ----------
        path : path-like, optional
            A folder, or a URL that fsspec understands (then read-only). The default is
            `default_workspace`.
        create : bool
            Make a workspace where there is nothing yet.

        Raises
        ------
        CaseError
            If there is none, if the folder is something else, or is of a newer format.
        """
        if path is not None and "://" in str(path):
            with reading("The workspace", str(path)):
                return cls(zarr.open_group(str(path), mode="r"))
        folder = (default_workspace() if path is None else Path(path)).expanduser().absolute()
        if not (folder / "zarr.json").exists():
            _begin_workspace(folder, create)
        with reading("The workspace", folder):
            workspace = cls(zarr.open_group(folder, mode="r+"))
        return workspace

    @property
    def path(self) -> str:
        """Folder, or URL, of the workspace."""
        return where(self._group)

    @property
    def group(self) -> zarr.Group:
        """The store's root."""
        return self._group

    @property
    def models_folder(self) -> Path:
        """Folder in which each model has a folder of its own."""
        return Path(self.path, "models")

    def cases(self) -> list[CaseInfo]:
        """Return the cases, the one that was last opened or changed first.

        A case that cannot be read is left out and logged.
        """
        infos = []
        for case_id in children(self._group, "cases"):
            try:
                infos.append(_info(self.case(case_id)))
            except CaseError as error:
                _log.warning("%s", error)
        return sorted(infos, key=lambda info: info.modified, reverse=True)

    def case(self, case_id: str) -> Case:
        """Return a case by its id; CaseError if there is none or it cannot be read."""
        mode: Literal["r", "r+"] = "r" if self._group.read_only else "r+"
        with reading(f'Case "{case_id}"', self.path):
            there = re.fullmatch(r"\w[\w.-]*", case_id) and f"cases/{case_id}" in self._group
            if there:
                return Case(zarr.open_group(self._group.store, path=f"cases/{case_id}", mode=mode))
        raise CaseError(f'{self.path} has no case "{case_id}": choose one from its list of cases.')

    def add_case(
        self,
        scan: Scan,
        progress: Callable[[int, int], None] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> str:
        """Import a scan as a new case.

        It is written beside the cases and moved among them when it is whole: a case that
        is listed is complete. What an interrupted import left behind is removed by the
        next one.

        Parameters
        ----------
        scan : Scan
        progress : callable, optional
            Called with slices written and slices in all; what it raises cancels the import.
        overrides : mapping, optional
            What a person says of how the scan looks, see `scans.appearance.Appearance.overruled`.

        Returns
        -------
        str
            The case's id.

        Raises
        ------
        CaseError
            If the disk is full or the workspace is read-only.
        ScanError
            If the scan cannot look like that.
        """
        if self._group.read_only:
            raise CaseError(f"{self.path} can only be read: choose a workspace on this computer.")
        incoming = Path(self.path, "incoming")
        with writing("the imported scan", self.path):
            incoming.mkdir(exist_ok=True)
            _remove_leftovers(incoming)
            case_id = self._free_id(scan)
            lock = Lock(incoming / f"{case_id}.lock", f"The import of {case_id}")
            try:
                name = self._free_name(scan)
                _write_case(
                    incoming / case_id, scan, name, progress or (lambda done, total: None), overrides or {}
                )
                (incoming / case_id).rename(Path(self.path, "cases", case_id))
            finally:
                shutil.rmtree(incoming / case_id, ignore_errors=True)
                lock.release()
                (incoming / f"{case_id}.lock").unlink(missing_ok=True)
                with suppress(OSError):  # another import may be using it
                    incoming.rmdir()
        return case_id

    def delete_case(self, case_id: str) -> None:
        """Move a case to the workspace's folder ``trash``, from which `undelete_case` takes it back.

        Raises
        ------
        CaseError
            If there is none, somebody has it open, or it cannot be moved.
        """
        case = self.case(case_id)
        case.lock().release()
        trash = Path(self.path, "trash")
        with writing(f'the trash, with case "{case.name}",', self.path):
            trash.mkdir(exist_ok=True)
            os.utime(
                Path(self.path, "cases", case_id), ns=(time.time_ns(),) * 2
            )  # the one that was deleted last has the last date
            Path(self.path, "cases", case_id).rename(trash / case_id)

    @property
    def deleted(self) -> list[str]:
        """Ids of the cases in the trash, the one that was deleted last first."""
        folder = Path(self.path, "trash")
        there = list(folder.iterdir()) if "://" not in self.path and folder.is_dir() else []
        return [case.name for case in sorted(there, key=lambda case: case.stat().st_mtime_ns, reverse=True)]

    def undelete_case(self, case_id: str) -> None:
        """Take a case out of the trash; raises CaseError if it is not there or cannot be moved."""
        if case_id not in self.deleted:
            raise CaseError(f'The trash of {self.path} has no case "{case_id}".')
        with writing(f'case "{case_id}"', self.path):
            Path(self.path, "trash", case_id).rename(Path(self.path, "cases", case_id))

    def find_case(self, scan: Scan) -> str | None:
        """Return the case of the same scan that was used last, None if there is none.

        The same are scans of one size with the same DICOM images or, where files do not name them one
        by one, with the same voxels.

        Raises
        ------
        CaseError
            If the workspace cannot be read; a case that cannot is passed over.
        """
        for info in self.cases():
            with suppress(CaseError):
                case = self.case(info.id)
                if case.shape != scan.voxels.shape or case.intensity != scan.intensity:
                    continue
                images = case.header["sop_uids"]
                if len({*images, *scan.sop_uids}) > 1:  # an image of many frames may hold several volumes
                    if list(images) == list(scan.sop_uids):
                        return case.id
                elif all(np.array_equal(case.read_slice(z), scan.voxels[z]) for z in range(case.shape[0])):
                    return case.id
        return None

    def _free_name(self, scan: Scan) -> str:
        """Return a name that no other case has: pictures of each patient often lie in a folder "png"."""
        taken = {info.name for info in self.cases()}
        folder = Path(scan.path).parent.name if scan.path else ""
        first = [scan.name, f"{folder} {scan.name}"] if folder else [scan.name]
        further = (f"{scan.name} ({number})" for number in count(2))
        return next(name for name in chain(first, further) if name not in taken)

    def _free_id(self, scan: Scan) -> str:
        name = re.sub(r"[^a-z0-9]+", "-", scan.name.lower()).strip("-")[:40] or "case"
        while True:
            case_id = f"{name}-{secrets.token_hex(3)}"
            if not Path(self.path, "cases", case_id).exists():
                return case_id


def _begin_workspace(folder: Path, create: bool) -> None:
    """Make the groups of an empty workspace, the root last: with it, it is one."""
    if folder.exists() and not folder.is_dir():
        raise CaseError(f"{folder} is a file, not a workspace: choose a folder.")
    if not create:
        raise CaseError(f"{folder} is no workspace: choose another folder or import a scan to begin one.")
    with writing("the new workspace", folder):
        folder.mkdir(parents=True, exist_ok=True)
        names = {item.name for item in folder.iterdir()} - {"cases", "models"}
        if any(not name.startswith("zarr.json") for name in names):
            raise CaseError(f"{folder} holds other files: choose an empty folder for the workspace.")
        own: dict[str, Any] = {KEY: {"kind": "workspace", "format": FORMAT}}
        for path, attributes in ((folder / "cases", {}), (folder / "models", {}), (folder, own)):
            with suppress(ContainsGroupError):  # somebody else begins the same workspace meanwhile
                zarr.open_group(path, mode="a", attributes=attributes)


def _write_case(
    folder: Path,
    scan: Scan,
    name: str,
    progress: Callable[[int, int], None],
    overrides: Mapping[str, Any],
) -> None:
    found = look_at(scan)
    found.overruled(**overrides)
    slices = scan.voxels.shape[0]
    own: dict[str, Any] = {
        "kind": "case",
        "format": FORMAT,
        "name": name,
        "shape": list(scan.voxels.shape),
        "header": scan.header(),
    }
    ome = _ome_image(scan)
    attributes: dict[str, Any] = {
        "ome": ome,
        KEY: own,
        APPEARANCE: found.to_json(),
        OVERRIDES: dict(overrides),
    }
    case = zarr.open_group(folder, mode="w-", attributes=attributes)
    ome = {"version": _OME_VERSION, "labels": list(GROUPS)}
    labels = case.create_group("labels", attributes={"ome": ome})
    for group in GROUPS:
        maps = labels.create_group(group, attributes={"ome": _ome_labels(group, scan.spacing)})
        create_slices(maps, "0", scan.voxels.shape, np.uint8)
        create_slices(maps, "touched", scan.voxels.shape, np.uint8)
    create_record(case, "review", (slices,), np.uint8, ("z",))
    case.create_group("predictions")
    activity = Activity(now(), now(), 0).as_record()
    write_record(create_record(case, "activity", (3,), np.int64, ("value",)), activity, "the case")
    voxels = create_slices(case, "0", scan.voxels.shape, scan.voxels.dtype)
    for z in range(slices):
        write_slice(voxels, z, scan.voxels[z])
        progress(z + 1, slices)


def _ome_image(scan: Scan) -> dict[str, Any]:
    """Return the ``ome`` attribute of a case: its scan as an OME-Zarr image with one resolution."""
    name = scan.name or "scan"
    low, high = LUNG_WINDOW if scan.intensity == "HU" else scan.window or (0, 255)
    window = {"start": low, "end": high, "min": low, "max": high}
    channel = {"label": name, "color": "FFFFFF", "active": True, "window": window}
    return {
        "version": _OME_VERSION,
        "multiscales": [_multiscale(name, scan.spacing)],
        "omero": {"channels": [channel], "rdefs": {"model": "greyscale"}},
    }


def _ome_labels(group: Group, spacing: tuple[float, float, float] | None) -> dict[str, Any]:
    """Return the ``ome`` attribute of one label map: geometry, names and colours."""
    labels = GROUPS[group]
    return {
        "version": _OME_VERSION,
        "multiscales": [_multiscale(group, spacing)],
        "image-label": {
            "colors": [{"label-value": label.value, "rgba": [*label.colour, 255]} for label in labels],
            "properties": [{"label-value": label.value, "name": label.name} for label in labels],
            "source": {"image": "../../"},
        },
    }


def _multiscale(name: str, spacing: tuple[float, float, float] | None) -> dict[str, Any]:
    """One resolution level "0"; without a spacing the axes have no unit and scale 1."""
    unit = {} if spacing is None else {"unit": "millimeter"}
    scale = [1.0, 1.0, 1.0] if spacing is None else [float(step) for step in spacing]
    return {
        "name": name,
        "axes": [{"name": axis, "type": "space", **unit} for axis in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}],
    }


def _remove_leftovers(incoming: Path) -> None:
    """Remove what interrupted imports left; one that is under way holds its lock."""
    for path in incoming.glob("*.lock"):
        if not path.stat().st_size:
            continue  # another import has just made it and is about to take it
        try:
            lock = Lock(path, path.stem)
        except CaseError:
            continue
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        lock.release()
        path.unlink(missing_ok=True)


def _info(case: Case) -> CaseInfo:
    try:
        activity = case.activity
    except DamagedError:  # the case itself may be whole, and opens
        activity = Activity(NEVER, NEVER, 0)
    return CaseInfo(
        id=case.id,
        name=case.name,
        shape=case.shape,
        modified=max(activity.opened, activity.modified),
        patient_id=case.header["patient_id"],
    )
