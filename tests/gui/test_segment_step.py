from __future__ import annotations

import json
import os
import signal
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from qtpy.QtCore import Qt

from napari_covseg.cases.case import Review
from napari_covseg.jobs.events import Progress
from napari_covseg.models.card import read_card
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.segment.segment_step import SegmentStep
from napari_covseg.panels.step import progress_text
from napari_covseg.scans import Scan

LONG = 170_000  # ms; the child has to load torch first


def test_cards_and_devices_are_explained(workbench: tuple[Viewer, CovSegDock], model_file: Path) -> None:
    step = workbench[1].segment
    step.install_model(str(model_file))
    assert step.model.currentText() == "thresholds: Thresholds (installed)"
    card = step.card.text()
    for said in ("Dark is lung", "Dice, test: lungs 0.50", "BSD-3-Clause", "not for diagnosis"):
        assert said in card, said
    assert "lungs, lesion" in step.card.toolTip()
    for index in range(step.device.count()):
        assert step.device.itemData(index, Qt.ItemDataRole.ToolTipRole)
        step.device.setCurrentIndex(index)
        assert step.device.toolTip() == step.device.itemData(index, Qt.ItemDataRole.ToolTipRole)
    assert not step.run.isEnabled()  # there is no scan yet
    assert step.status.text() == "Open a scan first."


def test_a_file_that_is_no_model_is_refused(
    workbench: tuple[Viewer, CovSegDock], model_file: Path, tmp_path: Path, notified: list[str]
) -> None:
    step = workbench[1].segment
    before = step.model.count()
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    step.install_model(str(tmp_path / "x.safetensors"))
    assert "x.safetensors" in notified[0]
    values = {"outputs": ("COVID-19",), "thresholds": {"COVID-19": 0.5}, "task": "recognition"}
    card = replace(read_card(model_file), **values)
    header = json.dumps({"__metadata__": {"card": card.to_json()}}).encode()
    (tmp_path / "y.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    step.install_model(str(tmp_path / "y.safetensors"))
    assert "is for recognition, not for segmentation" in notified[1]
    assert step.model.count() == before


def test_the_childs_death_is_told_and_the_next_run_works(
    workbench: tuple[Viewer, CovSegDock],
    add_scan: Callable[[Viewer, Scan], Any],
    scan: Scan,
    model_file: Path,
    qtbot: Any,
    notified: list[str],
) -> None:
    viewer, dock = workbench
    session, step = dock.session, dock.segment
    step.install_model(str(model_file))
    notified.clear()
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: session.case is not None, timeout=LONG)
    session.labels_changed.connect(lambda: kill_once())
    killed: list[list[int]] = []

    def kill_once() -> None:
        done = np.flatnonzero(session.case.review == Review.PREDICTED).tolist()
        if done and not killed:
            killed.append(done)
            os.kill(dock.workbench.jobs.child_pid, signal.SIGKILL)

    step.run.click()
    assert step.progress.isVisible() and not step.run.isEnabled()
    qtbot.waitUntil(lambda: bool(killed), timeout=LONG)
    qtbot.waitUntil(lambda: not session.busy_with, timeout=LONG)
    assert len(notified) == 1 and "ended unexpectedly" in notified[0]
    assert (session.case.review[killed[0]] == Review.PREDICTED).all()
    assert step.run.isEnabled() and not step.progress.isVisible()

    notified.clear()
    step.run.click()
    qtbot.waitUntil(lambda: not session.busy_with, timeout=LONG)
    assert (session.case.review == Review.PREDICTED).all()
    assert not notified
    assert "predicted by thresholds, not reviewed" in step.status.text()

    # the labels are what the thresholds say: two lungs with sides, a finding at the lung, none in the heart
    lungs, lesions = (session.layers.labels[group].data for group in ("lungs", "lesions"))
    assert lungs[6, 48, 20] == 1 and lungs[6, 48, 68] == 2
    assert (lesions[6, 50:62, 22:34] == 1).any() and not lesions[:, 48, 48].any()


def test_closing_the_scan_while_it_is_labelled(
    workbench: tuple[Viewer, CovSegDock],
    add_scan: Callable[[Viewer, Scan], Any],
    scan: Scan,
    model_file: Path,
    qtbot: Any,
    notified: list[str],
) -> None:
    viewer, dock = workbench
    dock.segment.install_model(str(model_file))
    notified.clear()
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    dock.segment.run.click()
    qtbot.waitUntil(lambda: dock.workbench.labelling.prediction is not None, timeout=LONG)
    viewer.layers.remove(dock.session.scan_image())
    qtbot.waitUntil(lambda: dock.session.case is None, timeout=LONG)
    assert not dock.session.busy_with and not viewer.layers
    qtbot.waitUntil(lambda: not dock.workbench.jobs.waiting, timeout=LONG)  # what still came of the job
    assert not notified


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, 64, "slices"), "0 of 64"),
        (Progress(12, 64, "slices", 4.21, 12.4), "12 of 64 · 4.2 slices/s · 0:12 left"),
        (Progress(12, 64, "slices", 0.25, 208.0), "12 of 64 · 0.2 slices/s · 3:28 left"),
    ],
)
def test_progress_is_said_plainly(progress: Progress, text: str) -> None:
    assert progress_text(progress) == text


def test_the_step_is_a_widget_of_its_own(make_napari_viewer: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, step = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg: Segment")
    assert isinstance(step, SegmentStep)
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    assert dock.session is step.session


def test_a_scan_that_goes_before_the_model_begins_leaves_nothing_busy(
    dock: CovSegDock, monkeypatch: pytest.MonkeyPatch, qtbot: Any
) -> None:
    session, later = dock.session, []
    monkeypatch.setattr(
        "napari_covseg.panels.segment.labelling.in_background",
        lambda save, then, on_error: later.append(then),
    )
    dock.workbench.labelling.start("thresholds", "Thresholds")
    assert session.busy_with
    session.viewer.layers.remove(session.scan_image())
    qtbot.waitUntil(lambda: session.case is None)
    assert not session.busy_with
    later[0](None)  # the strokes are on disk, and nobody waits for that
    assert not session.busy_with and dock.workbench.labelling.prediction is None
