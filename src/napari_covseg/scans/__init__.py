"""Read scans and write labels; geometry in and out."""

from napari_covseg.scans.dicom.series import SeriesInfo, list_series
from napari_covseg.scans.labels_out import write_labels
from napari_covseg.scans.read import read_scan
from napari_covseg.scans.scan import Scan

__all__ = ["Scan", "SeriesInfo", "list_series", "read_scan", "write_labels"]
