"""No stroke is lost when the workspace cannot be written, as the person at the viewer sees it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from canvas_mouse import Mouse
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from napari_covseg.cases import chunks, rescue
from napari_covseg.cases.case import Damage
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.scan.facts import damage_text
from napari_covseg.scans import Scan

LONG = 60_000  # ms


@pytest.fixture(autouse=True)
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Refuges of this test alone."""
    places = [tmp_path / "data", tmp_path / "home"]
    monkeypatch.setattr(rescue, "folders", lambda: places)
    return places


class Disk:
    """The workspace's disk, which can be full."""

    def __init__(self) -> None:
        self._write = chunks._write_file
        self.full = False

    def write(self, path: str, data: bytes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        self._write(path, data)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    made = Disk()
    monkeypatch.setattr(chunks, "_write_file", made.write)
    yield made
    made.full = False


@pytest.fixture
def paint(dock: CovSegDock, case: OpenCase, mouse: Mouse) -> Callable[[float], None]:
    """Paint a stroke with the mouse, at some mm from the back; its revision is in the case then."""
    lesions = dock.session.layers.labels["lesions"]
    viewer = dock.session.viewer

    def draw(y: float) -> None:
        viewer.layers.selection.active = lesions
        lesions.mode, lesions.selected_label, lesions.brush_size = "paint", 2, 5
        before, z = case.revision, viewer.dims.point[0]
        mouse.drag([mouse.at((z, y, 120)), mouse.at((z, y, 180))])
        assert case.revision > before

    return draw


def everything(case: OpenCase) -> list[Any]:
    return [array.copy() for array in (*case.live.values(), *case.touched.values(), case.review)]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def reopened(dock: CovSegDock, case_id: str, qtbot: Any) -> OpenCase:
    dock.workbench.opening.case(case_id)
    qtbot.waitUntil(lambda: dock.session.case is not None and not dock.session.busy_with, timeout=LONG)
    assert dock.session.case is not None
    return dock.session.case


def said(notified: list[str], *words: str) -> list[str]:
    return [text for text in notified if all(word in text for word in words)]


def test_strokes_on_a_full_disk_come_back_when_the_case_opens(
    dock: CovSegDock,
    case: OpenCase,
    paint: Callable[[float], None],
    disk: Disk,
    folders: list[Path],
    qtbot: Any,
    notified: list[str],
) -> None:
    paint(100)
    case.flush()
    disk.full = True
    paint(150)
    qtbot.waitUntil(lambda: bool(said(notified, "disk is full", "Save elsewhere …")))
    paint(200)
    assert dock.workbench.opening.close()
    assert dock.session.case is None and not dock.session.viewer.layers
    (path,) = folders[0].iterdir()
    assert said(notified, "disk is full", str(path), "by themselves")
    QApplication.processEvents()
    assert len(said(notified, "Save elsewhere …")) == 1  # not for each stroke, nor after the case is closed
    known, history = everything(case), case.history()

    disk.full = False
    again = reopened(dock, case.id, qtbot)
    qtbot.waitUntil(lambda: bool(said(notified, "are back", str(path))))
    assert same(everything(again), known) and again.history() == history
    assert dock.session.layers.labels["lesions"].data is again.live["lesions"]
    assert [one.name for one in folders[0].iterdir()] == [f"{path.name}.brought-back"]

    dock.workbench.opening.close()
    again = reopened(dock, case.id, qtbot)
    assert same(everything(again), known) and again.history() == history
    assert len(said(notified, "are back")) == 1


def test_a_case_whose_strokes_fit_nowhere_stays_open(
    dock: CovSegDock,
    case: OpenCase,
    paint: Callable[[float], None],
    disk: Disk,
    folders: list[Path],
    scan: Scan,
    qtbot: Any,
    notified: list[str],
    workspace_folder: Path,
) -> None:
    session, workspace = dock.session, Workspace.open(workspace_folder)
    other = workspace.add_case(scan)
    for folder in folders:
        folder.write_text("a file lies where the folder should be")
    disk.full = True
    paint(150)
    layers, known = list(session.viewer.layers), everything(case)

    assert not dock.workbench.opening.close()
    assert said(notified, "stays open", "disk is full", str(folders[1]))
    dock.workbench.opening.case(other)
    qtbot.waitUntil(lambda: len(said(notified, "stays open")) == 2, timeout=LONG)
    assert session.case is case and not session.busy_with
    assert list(session.viewer.layers) == layers
    assert dock.scan.recent.currentData() == case.id
    OpenCase(workspace, other).close(discard=True)  # nobody holds it

    paint(200)  # one can go on
    assert not same(everything(case), known)
    known = everything(case)
    disk.full = False
    assert dock.workbench.opening.close() and not session.viewer.layers
    assert same(everything(reopened(dock, case.id, qtbot)), known)


def test_taking_the_scan_away_gives_up_what_fits_nowhere(
    dock: CovSegDock,
    case: OpenCase,
    paint: Callable[[float], None],
    disk: Disk,
    folders: list[Path],
    notified: list[str],
    workspace_folder: Path,
    qtbot: Any,
) -> None:
    for folder in folders:
        folder.write_text("a file lies where the folder should be")
    disk.full = True
    paint(150)
    dock.session.viewer.layers.remove(dock.session.scan_image())
    qtbot.waitUntil(lambda: dock.session.case is None and not dock.session.viewer.layers)
    assert said(notified, "are lost", "disk is full")
    OpenCase(Workspace.open(workspace_folder), case.id).close(discard=True)  # the lock was given back


def test_the_window_says_what_is_not_saved_before_it_closes(
    dock: CovSegDock,
    case: OpenCase,
    paint: Callable[[float], None],
    disk: Disk,
    folders: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []
    answers = [QMessageBox.StandardButton.Cancel, QMessageBox.StandardButton.Discard]

    def answer(parent: Any, title: str, text: str, *buttons: Any) -> Any:
        asked.append(text)
        return answers.pop(0)

    monkeypatch.setattr(QMessageBox, "warning", answer)
    monkeypatch.setattr(QMessageBox, "information", lambda parent, title, text: asked.append(text))
    paint(100)
    assert dock.workbench.opening.may_close_window() and not asked

    folders[0].write_text("a file lies where the folder should be")
    folders[1].write_text("here too")
    disk.full = True
    paint(150)
    event, window = QCloseEvent(), dock.session.viewer.window._qt_window
    QApplication.sendEvent(window, event)
    assert not event.isAccepted() and window.isVisible()
    assert dock.session.case is case
    assert dock.workbench.opening.may_close_window()  # given up
    assert len(asked) == 2 and "disk is full" in asked[0] and "lose the last strokes" in asked[0]

    folders[1].unlink()
    assert dock.workbench.opening.may_close_window()
    (path,) = folders[1].iterdir()
    assert str(path) in asked[2] and dock.session.case is None


def test_strokes_go_into_a_file_and_back_by_hand(
    dock: CovSegDock,
    case: OpenCase,
    paint: Callable[[float], None],
    disk: Disk,
    folders: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: Any,
    notified: list[str],
) -> None:
    step, session = dock.history, dock.session
    dock.sections[4].toggleButton().click()
    stick = tmp_path / "stick"
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(stick))
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *a, **k: (str(next(stick.iterdir())), ""))
    disk.full = True
    paint(150)
    step.save_elsewhere.click()
    (path,) = stick.iterdir()
    assert said(notified, str(path), "Bring back …")
    known = everything(case)
    assert dock.workbench.opening.close() and not step.bring_back.isEnabled()
    (waiting,) = folders[0].iterdir()
    waiting.unlink()

    disk.full = False
    again = reopened(dock, case.id, qtbot)
    lesions = session.layers.labels["lesions"]
    assert not lesions.data.any() and step.bring_back.isEnabled()
    step.bring_back.click()
    assert same(everything(again), known) and lesions.data.any()
    assert said(notified, "1 change of", str(path), "back")
    qtbot.waitUntil(lambda: step.rows.rowCount() == 1)
    step.bring_back.click()
    assert said(notified, "already")
    lesions.undo()
    assert not again.live["lesions"].any()
    lesions.redo()
    assert np.array_equal(again.live["lesions"], known[1])

    (stick / path.name).write_bytes(b"no strokes")
    step.bring_back.click()
    assert said(notified, "holds no strokes")
    monkeypatch.setattr(QFileDialog, "getExistingDirectory", lambda *a, **k: str(path))
    step.save_elsewhere.click()
    assert said(notified, "session's strokes", "not saved")


def test_damage_is_said_and_stays_in_sight(
    dock: CovSegDock, case: OpenCase, qtbot: Any, notified: list[str]
) -> None:
    case.live["lungs"][:] = 1
    case.record("lungs", np.nonzero(case.live["lungs"]), 0)
    dock.workbench.opening.close()
    for name in ("0/c.3.0.0", "labels/lungs/0/c.5.0.0"):
        (Path(case.case.path) / name).write_bytes(b"damaged")
    again = reopened(dock, case.id, qtbot)
    assert (again.live["lungs"][5] == 1).all()
    qtbot.waitUntil(lambda: bool(said(notified, "was damaged")))
    for text in (*said(notified, "was damaged"), dock.scan.facts.text()):
        assert "Slice 4 of the scan cannot be read and is shown as air." in text
        assert "Slice 6 of the lungs was damaged and made anew from the history." in text
    assert len(said(notified, "was damaged")) == 1


def test_damage_text() -> None:
    assert damage_text([]) == []
    slices = [Damage("labels", "lesions", z, "") for z in (11, *range(9))]
    (sentence,) = damage_text(slices)
    assert sentence.startswith("Slices 1, 2, 3, 4, 5, 6, 7, 8 … of the lesions cannot be read and are")
    both = [Damage(what, "lungs", 0, "", rebuilt=True) for what in ("labels", "touched")]
    assert damage_text(both) == ["Slice 1 of the lungs was damaged and made anew from the history."]
    assert damage_text([Damage("touched", "lungs", 2, "")]) == [
        "Slice 3 of the lungs no longer tells what a person drew: models leave it alone."
    ]
    records = damage_text([Damage("review", "", -1, ""), Damage("activity", "", -1, "")])
    assert len(records) == 2 and "review states" in records[0]
