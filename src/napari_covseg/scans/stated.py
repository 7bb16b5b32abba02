"""What a scan is: by its pixels and, where its file says more than these, by its file."""

from __future__ import annotations

import cv2
import numpy as np

from napari_covseg.scans.appearance import Appearance, look
from napari_covseg.scans.scan import Scan, in_window

LARGEST = 1024
"""Longest side in pixels at which an X-ray is looked at: detectors have far more than is seen."""


def look_at(scan: Scan) -> Appearance:
    """Look at a scan; the file of an X-ray says that it is one and, with its polarity, how it lies."""
    if not scan.stated or scan.window is None:
        return look(scan.voxels, scan.intensity)
    picture = scan.voxels[0].astype(np.float32)
    if (scale := LARGEST / max(picture.shape)) < 1:
        picture = np.asarray(cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    found = look(in_window(picture, scan.window), "grey")
    kind, sure = found.kind, 1.0
    if kind == "chest X-ray" and scan.stated == "any X-ray":
        sure = found.confidence["kind"]
    elif kind != "blank":
        kind = "chest X-ray" if scan.stated == "chest X-ray" else "X-ray"
    return Appearance(
        "grey",
        kind,
        marks=found.marks,
        bits=max(8, int(scan.voxels.max()).bit_length()),
        confidence={"kind": sure, "marks": found.confidence.get("marks", 1.0)},
    )
