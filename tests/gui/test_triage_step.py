"""What networks say that a scan shows, in the real viewer: with a child, and with answers of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recognisers
from napari import Viewer
from napari.settings import get_settings
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QTextDocument
from qtpy.QtWidgets import QApplication, QScrollArea
from recognisers import TRUST, make_card
from xrays import write_xray

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.recognition import Recognition
from napari_covseg.jobs.events import (
    Event,
    Failed,
    Finished,
    RecognitionStarted,
    ScanRecognised,
    SliceRecognised,
)
from napari_covseg.jobs.requests import Recognise
from napari_covseg.models import catalogue
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import available
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.triage.triage_step import TriageStep
from napari_covseg.recognise.answers import verdict

LONG = 170_000  # ms; the child has to start


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("recognisers")
    # in a process of its own, because torch must not be loaded in this one
    subprocess.run([sys.executable, recognisers.__file__, folder], check=True)
    return folder


@pytest.fixture(autouse=True)
def installed(
    workspace_folder: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Have the models of the test, and of those in the package only what labels."""
    shutil.copytree(model_folder, os.environ["COVSEG_MODELS"])
    shipped = tmp_path / "shipped"
    shipped.mkdir()
    for entry in available():
        if entry.origin == "shipped":
            shutil.copy(entry.path, shipped)
    monkeypatch.setattr(catalogue, "_SHIPPED", shipped)


@pytest.fixture
def triage(dock: CovSegDock, case: OpenCase, monkeypatch: pytest.MonkeyPatch) -> TriageStep:
    """The step, unfolded, with a CT open; no child is asked."""
    monkeypatch.setattr(dock.workbench.jobs, "submit", lambda *_: 0)
    dock.sections[1].toggleButton().click()
    assert case.appearance.kind == "chest CT"
    dock.session.go_to(6)
    return dock.triage


class Child:
    """Answers in the place of a child: writes into the case and tells of it."""

    def __init__(self, triage: TriageStep, case: OpenCase, qtbot: Any, patch: pytest.MonkeyPatch) -> None:
        self.case, self.requests, self.kept = case, list[Recognise](), dict[str, Recognition]()
        self._hear: list[Callable[[Event], None]] = []
        self._scan = triage.session
        patch.setattr(triage.workbench.jobs, "submit", self._submit)
        triage.run.click()
        qtbot.waitUntil(lambda: bool(self.requests))
        for card in self._cards():
            said, outputs = verdict(card, case.appearance), card.outputs
            kept = case.case.begin_recognition(
                card.id, card.task, outputs,
                {"modality": "CT", "shown": said.shown, "caution": TRUST, "thresholds": card.thresholds},
                0, (24, 24),
            )  # fmt: skip
            self.kept[card.id] = kept
            self.tell(RecognitionStarted(card.id, card.task, outputs, kept.id))

    def _submit(self, request: Any, hear: Callable[[Event], None], *_: Any) -> int:
        if isinstance(request, Recognise):
            self.requests.append(request)
            self._hear.append(hear)
        return 7

    def _cards(self) -> list[ModelCard]:
        return [entry.card for entry in available(None) if entry.card.id in self.requests[0].models]

    def tell(self, event: Event) -> None:
        self._hear[0](event)

    def answer(self, model: str, z: int, sure: tuple[float, ...], heat: bool = True) -> None:
        maps = np.zeros((len(sure), 24, 24), np.uint8)
        maps[:, :12, 12:] = np.rint(255 * np.array(sure))[:, None, None]
        self.kept[model].write_slice(z, sure, maps if heat else None)
        self.tell(SliceRecognised(model, z, sure, self.kept[model].id))

    def end(self, model: str, scan: tuple[float, ...], shares: tuple[float, ...] = ()) -> None:
        card = next(card for card in self._cards() if card.id == model)
        said = verdict(card, self.case.appearance)
        self.kept[model].finish(scan, shares)
        self.tell(ScanRecognised("two lungs", model, card.task, card.outputs, scan, shares, 12, said.shown,
                                 said.caution, self.kept[model].id))  # fmt: skip


def test_answers_come_slice_by_slice_and_are_there_again(
    triage: TriageStep, case: OpenCase, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = triage.session
    assert "tiny-ct was not asked yet" in triage.said.text() and not triage.bars.isVisible()
    child = Child(triage, case, qtbot, monkeypatch)
    assert child.requests[0].models == ("tiny-ct", "tiny-manifestations")
    assert child.requests[0].first_slice == session.slice_on_screen == 6
    child.answer("tiny-ct", 6, (0.8, 0.2))
    child.answer("tiny-manifestations", 6, (0.9, 0.2, 0.1))
    qtbot.waitUntil(triage.bars.isVisible)
    # the model is not to be trusted: no finding, without a mark, hatched
    assert triage.bars.text == "COVID-19 80 %, not COVID-19 20 %"
    assert "No finding." in triage.said.text() and TRUST in triage.said.text()
    assert triage.strip.isVisible() and triage.strip.count == 12
    assert triage.strip.describe(6) == "Slice 7: ground-glass 90 %, consolidation 20 %, pleural effusion 10 %"
    assert "not answered" in triage.strip.describe(5)
    for z in range(6):
        child.answer("tiny-ct", z, (0.5, 0.5))
        child.answer("tiny-manifestations", z, (z / 10, 0.6, 0.0))
    child.end("tiny-ct", (0.7, 0.3))
    child.end("tiny-manifestations", (0.9, 0.6, 0.1), (0.25, 0.5, 0.0))
    child.tell(Finished())
    assert not session.busy_with and not triage.heat.isChecked()  # no finding has no heat map by itself
    qtbot.waitUntil(lambda: "70 %" in triage.bars.text)
    assert "ground-glass" in triage.table.text() and "● 90 %" in triage.table.text()

    # a click on the strip goes to the slice, whose answer is in the table
    place = QPoint(int(triage.strip.place_of(3)), 20)
    qtbot.mouseClick(triage.strip, Qt.MouseButton.LeftButton, pos=place)
    assert session.slice_on_screen == 3 and "Slice 4" in triage.table.text()
    assert "○ 30 %" in triage.table.text() and "● 60 %" in triage.table.text()
    session.go_to(8)
    assert "–" in triage.table.text()

    before = triage.bars.text, triage.strip.describe(3), triage.said.text()
    triage.workbench.opening.close()
    qtbot.waitUntil(lambda: session.case is None)
    assert not triage.bars.isVisible() and not triage.strip.isVisible()
    triage.workbench.opening.case(case.id)
    qtbot.waitUntil(triage.bars.isVisible)
    assert (triage.bars.text, triage.strip.describe(3), triage.said.text()) == before

    # what a job still tells that was asked before is no answer of the next one
    following = Child(triage, session.case, qtbot, monkeypatch)
    child.tell(SliceRecognised("tiny-ct", 3, (0.1, 0.9), child.kept["tiny-ct"].id))
    following.answer("tiny-ct", 6, (0.6, 0.4))
    assert np.flatnonzero(~np.isnan(triage.answers["recognition"].probabilities[:, 0])).tolist() == [6]
    following.tell(Finished())


@pytest.mark.parametrize("font", [9, 12])
def test_labels_that_say_otherwise_are_seen_and_nothing_is_cut_off(
    font: int,
    dock: CovSegDock,
    triage: TriageStep,
    case: OpenCase,
    qtbot: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(get_settings().appearance, "font_size", font)
    child = Child(triage, case, qtbot, monkeypatch)
    for z in range(12):
        child.answer("tiny-manifestations", z, (0.9 if z < 8 else 0.1, 0.1, 0.1))
    child.end("tiny-manifestations", (0.9, 0.1, 0.1), (0.67, 0.0, 0.0))
    child.tell(Finished())
    plain = triage.strip.grab().toImage()
    outputs = ("lungs", "ground-glass", "consolidation")
    run = case.case.begin_prediction("other", {}, outputs, 0, probabilities=False)
    for z in range(12):
        lesions = np.zeros((96, 96), np.uint8)
        lesions[40, 40:50] = 2 * (z in (5, 6, 7, 8))
        lesions[50, 40:49] = 3 * (z == 6)  # too few pixels to count
        run.write_slice(z, lesions * 0, lesions)
    run.finish()
    triage.session.busy_changed.emit("")  # as when a run ends
    qtbot.waitUntil(lambda: "The labels of other differ" in triage.differences.text())
    assert triage.differences.text().endswith("differ on slices: 6 for ground-glass.")
    assert triage.strip.grab().toImage() != plain
    triage.session.go_to(8)
    assert "● yes, differs" in triage.table.text() and "not told apart" in triage.table.text()
    area = dock.findChild(QScrollArea)
    for words in (triage.said, triage.table, triage.differences):
        qtbot.waitUntil(lambda words=words: words.height() >= words.heightForWidth(words.width()))
        page = QTextDocument(defaultFont=words.font(), documentMargin=0)
        page.setHtml(words.text())
        page.setTextWidth(words.width())
        assert page.size().width() <= words.width() + 1, words.text()
    assert area.widget().width() <= area.viewport().width() and area.horizontalScrollBar().maximum() == 0
    triage.session.go_to(6)
    assert "differs" not in triage.table.text() and "● yes" in triage.table.text()


def test_a_heat_map_lies_on_the_scan_and_comes_by_itself_only_with_a_finding(
    triage: TriageStep, case: OpenCase, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer, outputs = triage.session.viewer, ("COVID-19", "not COVID-19")
    trusted = make_card(id="tiny-ct", modalities=("CT",))  # as if the figure of the model held
    monkeypatch.setattr(
        "napari_covseg.panels.triage.recognising.verdict", lambda _, seen: verdict(trusted, seen)
    )
    child = Child(triage, case, qtbot, monkeypatch)
    child.answer("tiny-ct", 6, (0.8, 0.2))

    def end(*scan: float) -> None:
        place = child.kept["tiny-ct"].id
        child.tell(
            ScanRecognised(
                "x", "tiny-ct", "recognition", outputs, scan, (), 1, True, TRUST, recognition_id=place
            )
        )

    end(0.8, 0.2)
    assert triage.heat.isChecked() and triage.output.currentText() == "COVID-19"
    layer, scan = triage.heat_map.layer, triage.session.layers.scan
    assert layer is not None and layer.name == "Heat map of COVID-19"
    corners = [one.extent.world + np.outer([-0.5, 0.5], one.scale) for one in (layer, scan)]
    np.testing.assert_allclose(corners[0], corners[1])
    assert layer.data.shape == (12, 24, 24)
    assert (layer.data[6, :12, 12:] == 204).all() and not layer.data[6, 12:].any()
    assert viewer.layers.selection.active is not layer
    triage.output.setCurrentText("not COVID-19")
    other = triage.heat_map.layer
    assert other.name == "Heat map of not COVID-19" and layer not in viewer.layers
    triage.heat.click()
    assert triage.heat_map.layer is None and other not in viewer.layers
    triage.heat.click()
    end(0.4, 0.6)
    assert not triage.heat.isChecked()
    child.tell(Failed("The child is gone; ask again.", True))
    assert not triage.session.busy_with and triage.run.isEnabled()


def test_of_what_is_no_chest_nothing_is_said_and_nobody_asked(
    triage: TriageStep, case: OpenCase, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    child = Child(triage, case, qtbot, monkeypatch)
    child.answer("tiny-ct", 6, (0.8, 0.2))
    child.tell(Finished())
    qtbot.waitUntil(triage.bars.isVisible)
    for kind, told in (
        ("abdomen CT", "so nothing is recognised in it"),
        ("chest X-ray", "was not asked yet"),
    ):
        case.override_appearance({"kind": kind})
        triage.session.appearance_changed.emit()
        assert not triage.bars.isVisible() and not triage.strip.isVisible(), kind
        assert told in triage.said.text() and triage.run.isEnabled() == (kind == "chest X-ray")
        assert triage.lists["manifestations"].isVisible() == (kind != "chest X-ray")
    assert triage.lists["recognition"].choice.name == "tiny-xray"  # the one that has learned from such
    case.override_appearance({})
    triage.session.appearance_changed.emit()
    assert triage.bars.isVisible() and triage.lists["recognition"].choice.name == "tiny-ct"


@pytest.mark.slow
def test_a_ct_and_an_x_ray_are_recognised_in_the_viewer(
    workbench: tuple[Viewer, CovSegDock], small_sample: Callable[..., None], tmp_path: Path, qtbot: Any
) -> None:
    small_sample((8, 96, 96), (35.0, 3.8, 3.8))
    viewer, dock = workbench
    triage, session = dock.triage, dock.session
    dock.segment.device.setCurrentIndex(dock.segment.device.findData("cpu"))
    viewer.open_sample("napari-covseg", "phantom")
    qtbot.waitUntil(lambda: session.case is not None and not session.busy_with, timeout=LONG)
    QApplication.setActiveWindow(dock.window())
    qtbot.keyClick(dock.window(), "9", Qt.KeyboardModifier.AltModifier)
    assert dock.sections[1].isExpanded() and triage.run.hasFocus()
    qtbot.keyClick(triage.run, Qt.Key.Key_Space)
    qtbot.waitUntil(lambda: bool(triage.answers), timeout=LONG)
    qtbot.waitUntil(lambda: not session.busy_with, timeout=LONG)
    findings = triage.answers["manifestations"]
    assert findings.scan.slices >= 5 and "No finding." in triage.said.text()
    kept = {info.model_id: info for info in session.case.case.recognitions()}
    assert set(kept) == {"tiny-ct", "tiny-manifestations"} and all(one.finished for one in kept.values())
    triage.output.setCurrentText("consolidation")
    triage.heat.click()
    qtbot.waitUntil(lambda: triage.heat_map.layer is not None and triage.heat_map.layer.data.any())
    assert not any(labels.any() for labels in session.case.live.values())  # no label has changed

    write_xray(tmp_path / "front.dcm", bits=14)
    dock.workbench.opening.path(tmp_path / "front.dcm")
    qtbot.waitUntil(lambda: triage.modality == "X-ray" and not session.busy_with, timeout=LONG)
    assert triage.heat_map.layer is None and not triage.strip.isVisible() and not triage.table.text()
    assert triage.lists["recognition"].choice.name == "tiny-xray"
    triage.run.click()
    qtbot.waitUntil(lambda: bool(triage.answers) and not session.busy_with, timeout=LONG)
    classes = triage.answers["recognition"]
    assert classes.shown and triage.bars.text.count("▸ ") == 1 and not triage.strip.isVisible()
    assert triage.heat.isChecked() == (classes.scan.probabilities[0] >= 0.5)
    assert len(session.case.case.recognitions()) == 1
