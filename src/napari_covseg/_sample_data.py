"""The sample scan of napari's menu: a phantom, which ``sample_data/make_phantom.py`` has made."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from napari_covseg._reader import LayerData, image_layer
from napari_covseg.scans import read_scan

FILE = Path(__file__).with_name("phantom.nrrd")
PATIENT = "phantom-7"


def make_sample_data() -> list[LayerData]:
    """Return the phantom as one image layer, as the reader would return it from a file.

    It reaches from the base of the neck to the upper abdomen, and its lungs hold
    ground-glass and consolidation.
    """
    scan = replace(
        read_scan(FILE),
        name="CovSeg phantom chest CT",
        path="",  # exports are offered beside a scan's file, and nobody looks for them here
        patient_id=PATIENT,
        notes=("A procedural phantom: no person was scanned.",),
    )
    return [image_layer(scan)]
