"""The formats, in one table, and the one entrance for all that can be read as a scan.

A new format is a `Format` in the table: its suffixes, whether it recognises a file, how it reads one;
a `VolumeFormat` also says which suffixes labels can be written to, and how.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.files import replacing, write_text
from napari_covseg.labels import Label
from napari_covseg.scans.dicom import Dicom
from napari_covseg.scans.dicom.folder import NothingReadError
from napari_covseg.scans.dicom.series import SeriesInfo, list_series
from napari_covseg.scans.intensity import VALUES
from napari_covseg.scans.itk import MetaImage, Nrrd
from napari_covseg.scans.nifti import Nifti
from napari_covseg.scans.orientation import Labels, as_stored
from napari_covseg.scans.pictures import Pictures, first_page, xrays_among
from napari_covseg.scans.scan import Format, Scan, Values
from napari_covseg.scans.volumes import VolumeFormat

VOLUMES: tuple[VolumeFormat, ...] = (Nifti(), Nrrd(), MetaImage())
DICOM, PICTURES = Dicom(), Pictures()
FORMATS: tuple[Format, ...] = (*VOLUMES, DICOM, PICTURES)
"""In the order in which they are asked whether they recognise a file."""

READABLE_SUFFIXES = tuple(suffix for known in FORMATS for suffix in known.suffixes)
LABEL_SUFFIXES = tuple(suffix for known in VOLUMES for suffix in known.written)
READABLE = "a DICOM folder or file, NIfTI, NRRD, MHA, or PNG, JPEG or TIFF pictures"


ARCHIVES = (".zip", ".7z", ".rar", ".tar", ".tgz", ".tar.gz", ".tar.bz2", ".tar.xz")


def read_scan(
    path: str | os.PathLike[str],
    *,
    series: str | None = None,
    values: Values | None = None,
    found: Sequence[SeriesInfo] | None = None,
) -> Scan:
    """Read a chest CT scan, or an X-ray.

    Parameters
    ----------
    path : path-like
        A folder of DICOM files (nested, any names), a single DICOM file, a NIfTI, NRRD or
        MetaImage file, a folder of pictures (one z per picture in natural file-name order)
        or a single picture.
    series : str, optional
        Which DICOM series of a folder, by its UID from `list_series`. By default the axial
        CT series with most slices, else an X-ray of the chest.
    found : sequence of SeriesInfo, optional
        What `list_series` said of the folder, so that its headers are not read again.

    Returns
    -------
    Scan
        int16 voxels (z, y, x) in canonical orientation; HU not below -1024, or grey 0-255. Of an X-ray in
        DICOM one slice with all its grey values, uint16 if they are above 32767.

    Raises
    ------
    ScanError
        If the path holds no scan, or one that is damaged, incomplete, or neither CT nor an X-ray.
    """
    path = Path(path)
    if values is not None and values not in VALUES:
        raise ScanError(f"Values cannot be {values!r}; say one of {', '.join(VALUES)}.")
    try:
        if path.is_dir():
            return _read_folder(path, series, values, found)
        if not path.exists():
            raise ScanError(f"{path} does not exist; check the path.")
        return _read_file(path, values, series)
    except OSError as error:
        raise ScanError(
            f"{path} cannot be read ({error.strerror or error}); check the disk and your permissions."
        ) from error
    except MemoryError as error:
        raise ScanError(
            f"{path.name} is larger than the free memory; close other programs or read a smaller series."
        ) from error


def _read_file(path: Path, values: Values | None, series: str | None = None) -> Scan:
    if _is_archive(path):
        raise _packed(path)
    for known in FORMATS:
        if known.recognises(path):
            return DICOM.read(path, values, series) if known is DICOM else known.read(path, values)
    if path.suffix.lower() in DICOM.suffixes:
        raise ScanError(
            f"{path.name} is not a DICOM file although its name says so, or it is truncated; copy it "
            "again from where it came from."
        )
    raise ScanError(f"{path.name} is not an image that can be read; choose {READABLE}.")


def _read_folder(
    folder: Path, series: str | None, values: Values | None, found: Sequence[SeriesInfo] | None
) -> Scan:
    _refuse_workspace(folder)
    unread: NothingReadError | None = None
    try:
        if (scan := DICOM.read_folder(folder, series, values, found)) is not None:
            return scan
    except NothingReadError as error:
        unread = error  # the folder may hold something else
    inside = sorted(folder.iterdir())
    files = [path for path in inside if path.is_file()]
    if pictures := [path for path in files if PICTURES.recognises(path)]:
        return PICTURES.read_stack(pictures, folder, values)
    volumes = sorted(
        {known.belongs_to(path) for path in files for known in VOLUMES if known.recognises(path)}
    )
    if len(volumes) == 1:
        return _read_file(volumes[0], values)
    if volumes:
        names = ", ".join(path.name for path in volumes[:5])
        raise ScanError(f"{folder.name} holds {len(volumes)} volumes ({names}); choose one of the files.")
    if unread is not None:
        raise unread
    if packed := [path for path in files if _is_archive(path)]:
        raise _packed(packed[0])
    deeper = [path.name for path in inside if path.is_dir() and any(map(PICTURES.recognises, path.iterdir()))]
    if deeper:
        names = ", ".join(deeper[:5])
        raise ScanError(f"{folder.name} holds no slices itself, its folders {names} do; choose one of them.")
    raise ScanError(f"{folder.name} holds no slices; choose {READABLE}.")


def scans_in(path: str | os.PathLike[str]) -> list[tuple[Path, str | None]]:
    """Return what in a folder `read_scan` reads one by one: path and series of each.

    Of X-rays, in DICOM or as pictures, each is one; everything else, a file too, is one scan.

    Raises
    ------
    ScanError
        If nothing in it can be read.
    """
    path = Path(path)
    if not path.is_dir():
        return [(path, None)]
    if series := list_series(path):
        xrays = [one for one in series if one.is_xray]
        return [(path, one.uid) for one in xrays] if len(xrays) == len(series) else [(path, None)]
    pictures = sorted(file for file in path.iterdir() if file.is_file() and PICTURES.recognises(file))
    return [(file, None) for file in pictures] if xrays_among(pictures, _page) else [(path, None)]


def _page(path: Path) -> npt.NDArray[Any]:
    """Return a picture; one without pixels where it is damaged, which is said when it is read."""
    try:
        return first_page(path)
    except ScanError:
        return np.empty((0, 0), np.uint8)


def _is_archive(path: Path) -> bool:
    if path.name.lower().endswith(ARCHIVES):
        return True
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _packed(path: Path) -> ScanError:
    return ScanError(
        f"{path.name} is an archive, not a scan; unpack it and choose the folder that comes out."
    )


def _refuse_workspace(folder: Path) -> None:
    """Say how to open what is kept already: a workspace, a case, or a part of one."""
    if not (folder / "zarr.json").is_file():
        return
    inside: list[str] = []
    for place in (folder.resolve(), *folder.resolve().parents[:5]):
        if _kind(place) == "workspace":
            if inside[:1] == ["cases"] and len(inside) > 1:
                what, case = f"belongs to the case {inside[1]} of the workspace {place.name}", f"{inside[1]} "
            else:
                what, case = f"belongs to the workspace {place.name}", ""
            raise ScanError(
                f"{folder.name} {what}, it is no scan to import; choose its cases from the list in the step "
                f"Scan, or open them with: covseg open {case}--workspace {shlex.quote(str(place))}"
            )
        inside.insert(0, place.name)
    if _kind(folder) == "case":
        raise ScanError(
            f"{folder.name} is a case that was taken out of its workspace; put it back into the folder cases "
            "of a workspace, and choose it from the list in the step Scan."
        )


def _kind(place: Path) -> str:
    """What a folder is to napari-covseg, empty if nothing."""
    try:
        return str(json.loads((place / "zarr.json").read_text())["attributes"]["covseg"]["kind"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def read_mask(path: str | os.PathLike[str], threshold: float | None = 0) -> npt.NDArray[Any]:
    """Return where the values of a volume file are above a threshold, bool (z, y, x).

    Without a threshold the values themselves, uint8: a label map. `read_scan` would take them for
    grey and stretch them.

    Raises
    ------
    ScanError
        If it does not exist, is damaged, no NIfTI, NRRD or MetaImage, or no label map of 0 to 255.
    """
    path = Path(path)
    for known in VOLUMES:
        if known.recognises(path) and path.is_file():
            return known.read_mask(path, threshold)
    raise ScanError(f"The mask {path} does not exist or is no NIfTI, NRRD or MHA file: correct its path.")


def label_files(path: str | os.PathLike[str]) -> tuple[Path, ...]:
    """Return the files that labels with names are written to: `path`, and a table where it holds no names.

    Parameters
    ----------
    path : path-like
        As `write_labels` takes it.
    """
    path = Path(path)
    ending, known = _written_as(path)
    return (path,) if known.names_inside else (path, path.with_name(f"{path.name[: -len(ending)]}.tsv"))


def write_labels(
    labels: Labels, scan: Scan, path: str | os.PathLike[str], names: Sequence[Label] = ()
) -> None:
    """Write a label map so that it lies exactly on the file that was read.

    The file appears whole or not at all. For pictures, whose spacing is unknown, it is a
    volume with one z per picture in file-name order and a spacing of 1 mm.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        In the canonical orientation of `scan`.
    scan : Scan
        Gives the geometry; its voxels are not used.
    path : path-like
        Ends in one of `LABEL_SUFFIXES`.
    names : sequence of Label
        What the values mean. A NRRD file holds it as segments do; beside other files a table of index,
        name and colour is written, as BIDS has it.

    Raises
    ------
    ScanError
        If the labels do not fit the scan, the ending is unknown or the file cannot be written.
    """
    path = Path(path)
    if labels.dtype != np.uint8:
        raise ScanError(
            f"Labels of type {labels.dtype} cannot be written; they must be uint8, one value per class."
        )
    stored = as_stored(labels, scan.axes, scan.flips) if labels.ndim == 3 else labels
    if stored.shape != tuple(scan.source_shape):
        raise ScanError(
            f"The labels have the shape {labels.shape}, which is not that of {scan.name or 'the scan'}; "
            "export them with the scan they were drawn on."
        )
    ending, known = _written_as(path)
    # In small letters, because libraries choose the format by it.
    try:
        with replacing(path, ending) as part:
            part.touch(exist_ok=False)  # libraries do not say as exactly why a file cannot be made
            known.write(part, stored, scan, names)
        if names:
            for table in label_files(path)[1:]:
                write_text(table, _table(names))
    except OSError as error:
        raise ScanError(
            f"{path} cannot be written ({error.strerror or error}); choose another folder or free some space."
        ) from error


def _written_as(path: Path) -> tuple[str, VolumeFormat]:
    """Return ending and format of a file to write labels to."""
    for known in VOLUMES:
        for ending in known.written:
            if path.name.lower().endswith(ending):
                return ending, known
    raise ScanError(
        f"{path.name} has an ending that labels cannot be written to; use {', '.join(LABEL_SUFFIXES)}."
    )


def _table(names: Sequence[Label]) -> str:
    rows = [
        "\t".join((str(name.value), name.name, "#{:02X}{:02X}{:02X}".format(*name.colour))) for name in names
    ]
    return "\n".join(("index\tname\tcolor", *rows, ""))
