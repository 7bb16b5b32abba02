"""``covseg demo``: the sample scan in a real window, labelled by the default model."""

from __future__ import annotations

from pathlib import Path

import napari
import numpy as np
from napari.utils.notifications import Notification, notification_manager
from qtpy.QtCore import QTimer

from napari_covseg.errors import JobError
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.session import Session

PLUGIN = "napari-covseg"
SIZE = (1280, 800)
SAMPLE_PATIENT = "phantom-"  # how the patient ids of the sample scan begin


def run_demo(screenshot: Path | None = None) -> None:
    """Open napari with the sample case and the dock, and label it from the middle slice on.

    Parameters
    ----------
    screenshot : Path, optional
        Save a picture of the window here when all slices are labelled, and close it.

    Raises
    ------
    JobError
        If the sample could not be labelled; only when a picture was asked for.
    """
    viewer = napari.Viewer()
    viewer.window.resize(*SIZE)
    _, dock = viewer.window.add_plugin_dock_widget(PLUGIN, "CovSeg")
    demo = Demo(viewer, dock, screenshot)
    demo.begin()
    napari.run()
    if screenshot is not None and not demo.finished:
        raise JobError(f"The demo could not label its sample scan: {demo.trouble or 'it was closed'}.")


class Demo:
    """Waits for one thing after the other, as a person would.

    Parameters
    ----------
    viewer : napari.Viewer
    dock : CovSegDock
    screenshot : Path, optional
        Where to save a picture at the end.
    """

    def __init__(self, viewer: napari.Viewer, dock: CovSegDock, screenshot: Path | None) -> None:
        self.finished = False
        self.trouble = ""
        self._viewer = viewer
        self._dock = dock
        self._session: Session = dock.session
        self._screenshot = screenshot
        self._labelling = False
        self._session.case_changed.connect(self._on_case)
        self._session.busy_changed.connect(self._on_busy)
        notification_manager.notification_ready.connect(self._on_notification)

    def begin(self) -> None:
        """Open the sample: the case of an earlier demo, or the phantom of napari's menu."""
        known = [c.id for c in self._session.workspace.cases() if c.patient_id.startswith(SAMPLE_PATIENT)]
        if known:
            self._dock.workbench.opening.case(known[0])
        else:
            self._viewer.open_sample(PLUGIN, "phantom")

    def _on_case(self) -> None:
        if self._session.case is not None and not self._labelling:
            self._labelling = True
            QTimer.singleShot(0, self._dock.segment.run.click)

    def _on_busy(self, what: str) -> None:
        if not what and self._labelling and not self.finished:
            QTimer.singleShot(0, self._end)

    def _end(self) -> None:
        case = self._session.case
        self.finished = case is not None and bool((case.live["lungs"] > 0).any()) and not self.trouble
        if case is not None and self.finished:
            most = int(np.argmax((case.live["lesions"] > 0).sum((1, 2))))
            self._session.go_to(most)
        if self._screenshot is not None:
            QTimer.singleShot(500, self._take_picture)  # until what moves has come to rest

    def _take_picture(self) -> None:
        if self.finished:
            self._viewer.window.screenshot(str(self._screenshot), flash=False, canvas_only=False)
        self._viewer.close()

    def _on_notification(self, notification: Notification) -> None:
        if str(notification.severity) == "error":
            self.trouble = str(notification.message).rstrip(".")
            if not self._session.busy_with and self._screenshot is not None:
                QTimer.singleShot(0, self._take_picture)
