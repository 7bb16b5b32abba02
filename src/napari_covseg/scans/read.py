"""One entrance for everything that can be read as a scan."""

from __future__ import annotations

import os
from pathlib import Path

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import looks_like_dicom
from napari_covseg.scans.dicom.read import read_dicom_file, read_dicom_folder
from napari_covseg.scans.pictures import is_picture, read_pictures
from napari_covseg.scans.scan import Scan
from napari_covseg.scans.volumes import read_volume, volume_suffix

READABLE = "a DICOM folder or file, NIfTI, NRRD, MHA, or PNG, JPEG or TIFF pictures"


def read_scan(path: str | os.PathLike[str], *, series: str | None = None) -> Scan:
    """Read a chest CT scan.

    Parameters
    ----------
    path : path-like
        A folder of DICOM files (nested, any names), a single DICOM file, a NIfTI, NRRD or
        MetaImage file, a folder of pictures (one z per picture in natural file-name order)
        or a single picture.
    series : str, optional
        Which DICOM series of a folder, by its UID from `list_series`. By default the axial
        CT series with most slices.

    Returns
    -------
    Scan
        int16 voxels (z, y, x) in canonical orientation; HU not below -1024, or grey 0-255.

    Raises
    ------
    ScanError
        If the path holds no scan, or one that is damaged, incomplete or not CT.
    """
    path = Path(path)
    try:
        if path.is_dir():
            return _read_folder(path, series)
        if not path.exists():
            raise ScanError(f"{path} does not exist; check the path.")
        return _read_file(path)
    except OSError as error:
        raise ScanError(
            f"{path} cannot be read ({error.strerror or error}); check the disk and your permissions."
        ) from error
    except MemoryError as error:
        raise ScanError(
            f"{path.name} is larger than the free memory; close other programs or read a smaller series."
        ) from error


def _read_file(path: Path) -> Scan:
    if volume_suffix(path):
        return read_volume(path)
    if looks_like_dicom(path):
        return read_dicom_file(path)
    if is_picture(path):
        return read_pictures([path], path)
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        raise ScanError(
            f"{path.name} is not a DICOM file although its name says so, or it is truncated; copy it "
            "again from where it came from."
        )
    raise ScanError(f"{path.name} is not an image that can be read; choose {READABLE}.")


def _read_folder(folder: Path, series: str | None) -> Scan:
    scan = read_dicom_folder(folder, series)
    if scan is not None:
        return scan
    inside = sorted(folder.iterdir())
    pictures = [path for path in inside if path.is_file() and is_picture(path)]
    if pictures:
        return read_pictures(pictures, folder)
    volumes = [path for path in inside if path.is_file() and volume_suffix(path)]
    if len(volumes) == 1:
        return read_volume(volumes[0])
    if volumes:
        names = ", ".join(path.name for path in volumes[:5])
        raise ScanError(f"{folder.name} holds {len(volumes)} volumes ({names}); choose one of the files.")
    deeper = [path.name for path in inside if path.is_dir() and any(map(is_picture, path.iterdir()))]
    if deeper:
        names = ", ".join(deeper[:5])
        raise ScanError(f"{folder.name} holds no slices itself, its folders {names} do; choose one of them.")
    raise ScanError(f"{folder.name} holds no slices; choose {READABLE}.")
