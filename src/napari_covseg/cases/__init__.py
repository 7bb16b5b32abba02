"""What is kept: workspace, cases, labels, review state, predictions, every revision."""

from napari_covseg.cases.case import Activity, Case
from napari_covseg.cases.ledger import Damage
from napari_covseg.cases.merge import Review, merge_run
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.past import Change, State
from napari_covseg.cases.revision import Revision
from napari_covseg.cases.run import Run, RunInfo
from napari_covseg.cases.workspace import CaseInfo, Workspace, default_workspace

__all__ = [
    "Activity",
    "Case",
    "CaseInfo",
    "Change",
    "Damage",
    "OpenCase",
    "Review",
    "Revision",
    "Run",
    "RunInfo",
    "State",
    "Workspace",
    "default_workspace",
    "merge_run",
]
