"""Label files that cannot be written are refused before the work, not after."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from napari_covseg.errors import ScanError
from napari_covseg.scans import LABEL_SUFFIXES


def check_output(path: str | os.PathLike[str]) -> None:
    """Refuse a label file that `scans.write_labels` could not write.

    Raises
    ------
    ScanError
        If the ending is unknown, the folder does not exist, or nothing can be written there.
    """
    file = Path(path).absolute()
    if not file.name.lower().endswith(LABEL_SUFFIXES):
        raise ScanError(f"{path} is no file for labels; let its name end in {', '.join(LABEL_SUFFIXES)}.")
    if file.is_dir():
        raise ScanError(f"{path} is a folder; give the name of a file.")
    if not file.parent.is_dir():
        raise ScanError(f"{path} cannot be written because its folder does not exist; make it first.")
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise ScanError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
