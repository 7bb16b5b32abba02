"""What a radiologist sees in napari."""

from napari_covseg.panels.correct_step import CorrectStep
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.export_step import ExportStep
from napari_covseg.panels.history_step import HistoryStep
from napari_covseg.panels.learn_step import LearnStep
from napari_covseg.panels.scan_step import ScanStep
from napari_covseg.panels.segment_step import SegmentStep

__all__ = ["CorrectStep", "CovSegDock", "ExportStep", "HistoryStep", "LearnStep", "ScanStep", "SegmentStep"]
