"""Label files that are whole or not there, and refused before the work when they cannot be written."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, write_labels

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written.

    Raises
    ------
    ScanError
        If the ending is unknown, the folder does not exist, or nothing can be written there.
    """
    file = Path(path)
    if not file.name.lower().endswith(SUFFIXES):
        raise ScanError(f"{file} does not end in one of {', '.join(SUFFIXES)}; choose one of these formats.")
    if file.is_dir():
        raise ScanError(f"{file} is a folder; give the name of a file.")
    if not file.absolute().parent.is_dir():
        raise ScanError(f"The folder of {file} does not exist; make it first.")
    try:
        with tempfile.TemporaryFile(dir=file.absolute().parent):
            pass
        if file.exists():
            with file.open("r+b"):
                pass
    except OSError as error:
        raise ScanError(f"{file} cannot be written ({error.strerror}); choose another place.") from error


def write_output(labels: npt.NDArray[np.uint8], scan: Scan, path: str | os.PathLike[str]) -> None:
    """Write labels in the geometry of a scan; an older file stays until the new one is whole.

    Parameters
    ----------
    labels : ndarray of uint8, shape (z, y, x)
        In the orientation of `scan`.
    scan : Scan
        Its voxels are not looked at.
    path : path-like
        Ends in one of `SUFFIXES`.

    Raises
    ------
    ScanError
        If the file cannot be written.
    """
    file = Path(path).absolute()
    suffix = next(suffix for suffix in SUFFIXES if file.name.lower().endswith(suffix))
    part = file.with_name(f".{file.name}-{os.getpid()}{suffix}")
    try:
        write_labels(labels, scan, part)
        os.replace(part, file)
    except OSError as error:
        raise ScanError(f"{file} cannot be written ({error.strerror}); choose another place.") from error
    finally:
        part.unlink(missing_ok=True)
