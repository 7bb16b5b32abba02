"""What is kept: workspace, cases, labels, review state, predictions."""

from napari_covseg.cases.case import Activity, Case
from napari_covseg.cases.merge import Review, merge_run
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.run import Run, RunInfo
from napari_covseg.cases.workspace import CaseInfo, Workspace, default_workspace

__all__ = [
    "Activity",
    "Case",
    "CaseInfo",
    "OpenCase",
    "Review",
    "Run",
    "RunInfo",
    "Workspace",
    "default_workspace",
    "merge_run",
]
