from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from napari import Viewer
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import QFileDialog, QInputDialog

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.preferences import preferred
from napari_covseg.panels.scan.facts import facts
from napari_covseg.panels.scan.scan_step import ScanStep
from napari_covseg.panels.session import Session
from napari_covseg.scans import Scan, SeriesInfo

LONG = 170_000  # ms; the child has to load torch first


def write_nifti(scan: Scan, path: Path) -> Path:
    image = sitk.GetImageFromArray(scan.voxels)
    image.SetSpacing((3.0, 3.0, 10.0))
    sitk.WriteImage(image, str(path))
    return path


def test_a_file_is_opened_in_the_child_and_comes_back(
    workbench: tuple[Viewer, CovSegDock],
    scan: Scan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
    notified: list[str],
    workspace_folder: Path,
) -> None:
    viewer, dock = workbench
    step = dock.scan
    assert step.facts.text() == "No scan is open."
    assert not step.windows["Lung"].isEnabled()
    path = write_nifti(scan, tmp_path / "patient.nii.gz")

    # what cannot be read is said in one sentence, and one can go on
    bad = tmp_path / "broken.nii.gz"
    bad.write_bytes(path.read_bytes()[:200])
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(bad), ""))
    step.open_file.click()
    assert step.progress.isVisible() and not step.open_file.isEnabled()
    qtbot.waitUntil(lambda: not dock.session.busy_with, timeout=LONG)
    assert len(notified) == 1 and "broken.nii.gz" in notified[0]
    assert step.open_file.isEnabled() and not step.progress.isVisible()

    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(path), ""))
    step.open_file.click()
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    image = dock.session.scan_image()
    assert image.name.startswith("Chest CT patient")
    assert tuple(image.scale) == (10, 3, 3) and [str(u) for u in image.units] == ["millimeter"] * 3
    assert tuple(viewer.dims.axis_labels) == ("z", "y", "x")
    assert "12 slices of 96 × 96 pixels" in step.facts.text()
    assert "3 mm, slices 10 mm apart" in step.facts.text()
    assert step.windows["Lung"].isEnabled()

    # closed by taking its layer away, it is in the list and opens as it was
    dock.session.layers.labels["lesions"].paint((5, 50, 50), 2)
    viewer.layers.remove(image)
    qtbot.waitUntil(lambda: dock.session.case is None and not viewer.layers)
    assert step.recent.currentText().startswith("choose")
    step.recent.setCurrentIndex(1)
    step.recent.activated.emit(1)
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    assert dock.session.layers.labels["lesions"].data[5, 50, 50] == 2
    case, again = dock.session.case, tmp_path / "again.nii.gz"
    assert [info.name for info in Workspace.open(workspace_folder).cases()] == [case.case.name]

    # the same scan under another name is the same case, unless one says otherwise
    again.write_bytes(path.read_bytes())
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(again), ""))
    assert not step.anew.isVisible()
    step.open_file.click()
    qtbot.waitUntil(step.anew.isVisible, timeout=LONG)
    assert dock.session.case is case and "open already" in notified[-1]
    assert len(Workspace.open(workspace_folder).cases()) == 1
    step.anew.click()
    qtbot.waitUntil(lambda: dock.session.case.id != case.id and not dock.session.busy_with, timeout=LONG)
    assert not step.anew.isVisible() and len(Workspace.open(workspace_folder).cases()) == 2


def test_one_case_is_on_screen_at_a_time(
    dock: CovSegDock,
    case: OpenCase,
    scan: Scan,
    add_scan: Callable[[Viewer, Scan], Any],
    qtbot: Any,
    notified: list[str],
) -> None:
    """As napari's File > Open adds layers."""
    viewer, session = dock.session.viewer, dock.session
    session.layers.labels["lesions"].paint((5, 50, 50), 2)
    other = replace(scan, voxels=np.flip(scan.voxels, 1).copy(), name="somebody else", patient_id="P8")
    session.begin("Labelling", "segment")
    layer = add_scan(viewer, other)
    assert session.case is case and not layer.visible and "when this has ended: Labelling" in notified[-1]
    session.end()
    qtbot.waitUntil(lambda: session.case is not case and not session.busy_with, timeout=LONG)
    names = ["Chest CT somebody else", "Lungs", "Lesions"]
    assert [layer.name for layer in viewer.layers] == names and layer.visible
    assert "P8" in dock.scan.facts.text() and not session.case.live["lesions"].any()

    add_scan(viewer, scan)  # the first one again: it is there with its labels, and once
    qtbot.waitUntil(lambda: session.case.id == case.id and not session.busy_with, timeout=LONG)
    assert [layer.name for layer in viewer.layers] == ["Chest CT two lungs", "Lungs", "Lesions"]
    assert session.layers.labels["lesions"].data[5, 50, 50] == 2 and "case already" in notified[-1]
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: "open already" in notified[-1], timeout=LONG)
    assert len(viewer.layers) == 3 and len(session.workspace.cases()) == 2


def test_layers_can_be_taken_away_and_come_back(dock: CovSegDock, case: OpenCase, qtbot: Any) -> None:
    viewer, session = dock.session.viewer, dock.session
    names = ["Chest CT two lungs", "Lungs", "Lesions"]
    backs = (
        dock.correct.paint.click,
        lambda: dock.workbench.opening.case(case.id),
        lambda: dock.workbench.labelling.start("no model", ""),
    )
    for z, back in enumerate(backs, 4):
        viewer.layers.selection = {viewer.layers["Lungs"], viewer.layers["Lesions"]}
        viewer.layers.remove_selected()
        assert session.case is case and len(viewer.layers) == 1
        back()
        assert [layer.name for layer in viewer.layers] == names
        session.layers.labels["lesions"].paint((z, 50, 50), 2)
        assert case.live["lesions"][4 : z + 1, 50, 50].all() and case.review[z] == Review.CORRECTED
        qtbot.waitUntil(lambda: not session.busy_with, timeout=LONG)
    viewer.layers.remove("Lesions")
    dock.workbench.opening.case(case.id)
    assert [layer.name for layer in viewer.layers] == names

    # napari takes out all that is selected one after the other, in the order of a set
    scan, lungs, lesions = names
    for order in ((scan, lesions, lungs), (lungs, scan, lesions), (lesions, lungs, scan), ()):
        viewer.layers.select_all()
        for name in order:
            viewer.layers.remove(name)
        viewer.layers.remove_selected()
        qtbot.waitUntil(lambda: session.case is None)
        assert not viewer.layers and not session.busy_with
        dock.workbench.opening.case(case.id)
        qtbot.waitUntil(lambda: session.case is not None and not session.busy_with, timeout=LONG)
        assert [layer.name for layer in viewer.layers] == names
        assert session.case.live["lesions"][5, 50, 50] == 2


def test_any_image_layer_can_be_the_scan(
    workbench: tuple[Viewer, CovSegDock], scan: Scan, qtbot: Any, notified: list[str]
) -> None:
    viewer, dock = workbench
    step = dock.scan
    assert not step.use_layer.isEnabled()
    colour = viewer.add_image(np.zeros((8, 8, 3), np.uint8), rgb=True, name="colour")
    step.use_layer.click()
    qtbot.waitUntil(lambda: bool(notified))
    assert "in colour" in notified[0] and dock.session.case is None
    qtbot.waitUntil(lambda: not dock.session.busy_with)
    viewer.layers.remove(colour)

    other = viewer.add_image(scan.voxels, name="from elsewhere", scale=(10, 3, 3), units=("mm",) * 3)
    assert step.layer.currentText() == "from elsewhere"
    step.use_layer.click()
    qtbot.waitUntil(lambda: dock.session.case is not None, timeout=LONG)
    assert dock.session.scan_image() is other  # the layer stays, its second copy goes
    assert other.data is dock.session.case.voxels
    assert [layer.name for layer in viewer.layers] == ["Chest CT from elsewhere", "Lungs", "Lesions"]
    assert "sides are as they were drawn" in step.facts.text()
    assert not step.use_layer.isEnabled()


def test_a_layer_of_the_reader_is_taken_at_once(
    make_napari_viewer: Any, add_scan: Callable[[Viewer, Scan], Any], scan: Scan, qtbot: Any
) -> None:
    viewer = make_napari_viewer(show=True)
    add_scan(viewer, scan)  # before there is a dock
    _, step = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg: Scan")
    assert isinstance(step, ScanStep)
    qtbot.waitUntil(lambda: step.session.case is not None, timeout=LONG)
    assert "Patient P7" in step.facts.text()
    assert "Gantry tilt of 12 degrees" in step.facts.text()


def test_a_case_of_somebody_else_opens_read_only(
    workbench: tuple[Viewer, CovSegDock], scan: Scan, qtbot: Any, notified: list[str], workspace_folder: Path
) -> None:
    workspace = Workspace.open(workspace_folder)
    case_id = workspace.add_case(scan)
    lock = workspace.case(case_id).lock()
    dock = workbench[1]
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: not dock.session.busy_with, timeout=LONG)
    case = dock.session.case
    assert case is not None and case.read_only and "two lungs" in notified[0]
    lock.release()


def test_several_series_are_offered(
    workbench: tuple[Viewer, CovSegDock], monkeypatch: pytest.MonkeyPatch, qtbot: Any, tmp_path: Path
) -> None:
    step = workbench[1].scan
    found = [
        SeriesInfo(uid="1.2.1", description="Thorax lung", modality="CT", slices=300, plane="axial"),
        SeriesInfo(uid="1.2.2", description="Thorax coronal", modality="CT", slices=80, plane="coronal"),
        SeriesInfo(uid="1.2.3", description="Report", modality="SR", slices=1, plane=""),
    ]
    monkeypatch.setattr("napari_covseg.panels.scan.scan_step.list_series", lambda folder: found)
    asked: list[Any] = []
    monkeypatch.setattr(step.workbench.opening, "path", lambda *args: asked.append(args))
    step.choose_series(tmp_path)
    qtbot.waitUntil(step.series.isVisible)
    assert [step.series.itemText(i) for i in range(step.series.count())] == [
        "Thorax lung · 300 axial CT slices",
        "Thorax coronal · 80 coronal CT slices",
    ]
    assert not asked
    step.series.setCurrentIndex(1)
    step.open_series.click()
    assert asked == [(str(tmp_path), "1.2.2")]

    del found[1:]
    step.choose_series(tmp_path)
    qtbot.waitUntil(lambda: len(asked) == 2)
    assert not step.series.isVisible()


def test_facts_of_pictures_and_markup() -> None:
    header = {"name": "<b>x", "patient_id": "", "spacing": None, "intensity": "grey", "notes": ()}
    text = facts(header, (1, 64, 48))
    assert "&lt;b&gt;x" in text and "No patient id" in text
    assert "1 slice of 48 × 64 pixels" in text and "mm unknown" in text and "not HU" in text


def test_a_case_is_renamed_deleted_taken_back_and_kept_elsewhere(
    dock: CovSegDock, case: OpenCase, qtbot: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, session, case_id, shown = dock.scan, dock.session, case.id, []
    monkeypatch.setattr(QInputDialog, "getText", lambda *a, **k: ("after a week", True))
    monkeypatch.setattr(QDesktopServices, "openUrl", lambda url: shown.append(url.toLocalFile()))
    step.manage.rename.trigger()
    assert "after a week" in step.facts.text() and "after a week" in step.recent.currentText()
    assert "after a week" in session.layers.scan.name
    step.manage.show_folder.trigger()
    assert [Path(folder).name for folder in shown] == [case_id]
    step.manage.delete.trigger()
    assert session.case is None and step.recent.currentText() == "no cases yet"
    step.manage.reflect()
    assert step.manage.undelete.isEnabled() and not step.manage.delete.isEnabled()
    step.manage.undelete.trigger()
    qtbot.waitUntil(lambda: session.case is not None)
    assert session.case.id == case_id

    other = tmp_path / "other.zarr"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(other))
    assert "workspace.zarr" in step.place.toolTip() and "zarr" in step.place.text()
    step.place.click()
    assert session.case is None and session.workspace.path == str(other)
    assert str(other) in step.place.toolTip() and preferred("workspace", "") == str(other)
    monkeypatch.delenv("COVSEG_WORKSPACE")
    assert Session(session.viewer).workspace.path == str(other)  # the next time
