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
from napari_covseg.scans.intensity import VALUES
from napari_covseg.scans.scan import Scan, Values

__all__ = [
    "LABEL_SUFFIXES",
    "READABLE_SUFFIXES",
    "VALUES",
    "VOLUMES",
    "Scan",
    "SeriesInfo",
    "Values",
    "appearance",
    "list_series",
    "read_mask",
    "read_scan",
    "scan",
    "write_labels",
]
