"""Read scans and write labels; geometry in and out."""

from napari_covseg.scans.dicom.series import SeriesInfo, list_series
from napari_covseg.scans.formats import (
    LABEL_SUFFIXES,
    READABLE_SUFFIXES,
    VOLUMES,
    read_mask,
    read_scan,
    write_labels,
)
from napari_covseg.scans.scan import Scan

__all__ = [
    "LABEL_SUFFIXES",
    "READABLE_SUFFIXES",
    "VOLUMES",
    "Scan",
    "SeriesInfo",
    "appearance",
    "list_series",
    "read_mask",
    "read_scan",
    "scan",
    "write_labels",
]
