"""What is kept: workspace, cases, labels, review state, predictions, every revision."""

from napari_covseg.cases.case import Activity, Case, Damage, Review
from napari_covseg.cases.edit_log import State
from napari_covseg.cases.merge import merge_run
from napari_covseg.cases.open_case import OpenCase, Restored
from napari_covseg.cases.revision import Revision
from napari_covseg.cases.run import Run, RunInfo
from napari_covseg.cases.workspace import CaseInfo, Workspace, default_workspace

__all__ = [
    "Activity",
    "Case",
    "CaseInfo",
    "Damage",
    "OpenCase",
    "Restored",
    "Review",
    "Revision",
    "Run",
    "RunInfo",
    "State",
    "Workspace",
    "default_workspace",
    "merge_run",
]
"""What is kept: workspace, cases, labels, review state, predictions, every revision."""


__all__ = [
    "Activity",
    "Case",
    "CaseInfo",
    "Damage",
    "OpenCase",
    "Restored",
    "Review",
    "Revision",
    "Run",
    "RunInfo",
    "State",
    "Workspace",
    "default_workspace",
    "merge_run",
]
