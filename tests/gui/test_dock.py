from __future__ import annotations

from typing import Any

from napari import Viewer
from qtpy.QtWidgets import QAbstractButton, QComboBox, QLineEdit, QProgressBar, QScrollArea

from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.workbench import WORKBENCHES, workbench_of


def test_every_control_says_what_it_does(workbench: tuple[Viewer, CovSegDock]) -> None:
    dock = workbench[1]
    for kind in (QAbstractButton, QComboBox, QLineEdit, QProgressBar):
        for control in dock.findChildren(kind):
            if control.objectName().startswith(("qt_", "ScrollLeft")):
                continue  # parts of Qt's own scroll bars
            assert control.toolTip(), control
    assert "not for diagnosis" in dock.use.text()


def test_steps_fold_and_open(workbench: tuple[Viewer, CovSegDock], qtbot: Any) -> None:
    dock = workbench[1]
    scan, segment, *_, export = dock.sections
    assert dock.scan.isVisible() and dock.segment.isVisible()
    assert [s.isExpanded() for s in dock.sections[:3]] == [True, True, False]
    export.toggleButton().click()
    qtbot.waitUntil(lambda: dock.export.height() > 60)
    scan.toggleButton().click()
    qtbot.waitUntil(lambda: dock.scan.height() == 0)
    assert segment.isExpanded()


def test_no_step_is_wider_than_the_dock(workbench: tuple[Viewer, CovSegDock], qtbot: Any) -> None:
    area = workbench[1].findChild(QScrollArea)
    for section in workbench[1].sections:
        section.expand(animate=False)
    qtbot.waitUntil(lambda: area.verticalScrollBar().isVisible())
    qtbot.waitUntil(lambda: area.widget().width() <= area.viewport().width())
    assert area.horizontalScrollBar().maximum() == 0


def test_text_is_never_cut_off(workbench: tuple[Viewer, CovSegDock], qtbot: Any) -> None:
    dock = workbench[1]
    dock.segment.card.setText("A sentence that is rather long for a dock. " * 12)
    card = dock.segment.card
    qtbot.waitUntil(lambda: card.height() >= card.heightForWidth(card.width()))
    assert card.geometry().bottom() < dock.segment.run.geometry().top()


def test_the_workbench_ends_with_its_window(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    assert workbench_of(viewer) is dock.workbench
    viewer.close()
    qtbot.waitUntil(lambda: viewer not in WORKBENCHES)
