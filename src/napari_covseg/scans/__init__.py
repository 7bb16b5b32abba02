"""Read scans and write labels; geometry in and out."""

from napari_covseg.scans.arrays import scan_of_array
from napari_covseg.scans.dicom.series import SeriesInfo, list_series
from napari_covseg.scans.formats import (
    LABEL_SUFFIXES,
    READABLE_SUFFIXES,
    VOLUMES,
    label_files,
    read_mask,
    read_scan,
    scans_in,
    write_labels,
)
from napari_covseg.scans.intensity import VALUES
from napari_covseg.scans.scan import Scan, Values
from napari_covseg.scans.volumes import has_geometry

__all__ = [
    "LABEL_SUFFIXES",
    "READABLE_SUFFIXES",
    "VALUES",
    "VOLUMES",
    "Scan",
    "SeriesInfo",
    "Values",
    "appearance",
    "has_geometry",
    "label_files",
    "list_series",
    "read_mask",
    "read_scan",
    "scan",
    "scan_of_array",
    "scans_in",
    "stated",
    "write_labels",
]
