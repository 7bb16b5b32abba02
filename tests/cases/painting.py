"""Paints in an open case as the viewer does."""

from __future__ import annotations

from typing import Any

import numpy as np

from napari_covseg.cases.open_case import OpenCase


def paint(opened: OpenCase, group: Any, index: Any, value: int | None = None, **how: Any) -> int:
    """Give the voxels at any NumPy index a label, or with None only take them for the person's."""
    chosen = np.zeros(opened.case.shape, np.bool_)
    chosen[index] = True
    voxels = np.nonzero(chosen)
    before = opened.live[group][voxels]
    if value is not None:
        opened.live[group][voxels] = value
    return opened.record(group, voxels, before, **how)
