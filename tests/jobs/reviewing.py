"""A person who corrects slices of the tiny scan."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.labels import Group


def correct(
    workspace: Workspace,
    case_id: str,
    slices: Iterable[int],
    state: Review = Review.CORRECTED,
    groups: tuple[Group, ...] = ("lungs", "lesions"),
) -> None:
    """Label the two dark boxes as lungs, and a part of one as ground-glass; `groups` by hand."""
    with OpenCase(workspace, case_id) as opened:
        y, x = (axis.ravel() for axis in np.indices(opened.case.shape[1:]))
        for z in slices:
            before = {group: opened.live[group][z].flatten() for group in groups}
            if "lungs" in groups:
                opened.live["lungs"][z, 10:30, 6:20] = opened.live["lungs"][z, 10:30, 28:42] = 3
            if "lesions" in groups:
                opened.live["lesions"][z, 14:20, 8:14] = 2
            for group in groups:
                opened.record(group, (np.full(y.shape, z), y, x), before[group])
            opened.set_review(z, state)
