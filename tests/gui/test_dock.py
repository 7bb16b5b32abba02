from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
from napari import Viewer
from qtpy.QtCore import QPoint, Qt
from qtpy.QtWidgets import (
    QAbstractButton,
    QApplication,
    QComboBox,
    QLineEdit,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QStyle,
    QStyleOptionButton,
)

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.keys import STEP_KEYS, shown
from napari_covseg.panels.step import ElidedButton, ElidedComboBox
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
    assert card.geometry().bottom() < dock.segment.device.geometry().top()


def test_the_workbench_ends_with_its_window(make_napari_viewer: Any, qtbot: Any) -> None:
    viewer = make_napari_viewer(show=True)
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    assert workbench_of(viewer) is dock.workbench
    viewer.close()
    qtbot.waitUntil(lambda: viewer not in WORKBENCHES)


def test_the_keyboard_alone_reaches_every_step_in_order_and_shows_where_it_is(
    dock: CovSegDock, workbench: tuple[Viewer, CovSegDock], qtbot: Any
) -> None:
    QApplication.setActiveWindow(dock.window())
    for section, (name, key) in zip(dock.sections, STEP_KEYS.items(), strict=True):
        modifier, digit = key.split("-")
        assert modifier == "Alt" and shown(key) in section.toggleButton().toolTip()
        qtbot.keyClick(dock.window(), digit, Qt.KeyboardModifier.AltModifier)
        focused = QApplication.focusWidget()
        assert section.isExpanded(), name
        inside = section.isAncestorOf(focused)
        assert inside != (name == "correct"), (name, focused)  # there the picture has the keys of the tools

    seen, at = [], dock.scan.open_file
    while at is not dock.export.save:
        if at.focusPolicy() & Qt.FocusPolicy.TabFocus and at.isVisible() and dock.isAncestorOf(at):
            seen.append(at)
        at = at.nextInFocusChain()
    steps = [next(n for n, part in enumerate(dock.sections) if part.isAncestorOf(one)) for one in seen]
    assert steps == sorted(steps) and set(steps) == set(range(len(dock.sections)))
    tops = [
        one.mapTo(dock.scan, QPoint(0, one.height() // 2)).y() for one in seen if dock.scan.isAncestorOf(one)
    ]
    assert all(below > above - 12 for above, below in pairwise(tops))  # beside each other, or below

    for control in (dock.segment.run, dock.scan.recent, dock.export.path, dock.sections[0].toggleButton()):
        control.clearFocus()
        without = control.grab().toImage()
        control.setFocus()
        assert control.grab().toImage() != without, control


def test_run_is_in_sight_on_a_small_screen(dock: CovSegDock, case: OpenCase, qtbot: Any) -> None:
    area = dock.findChild(QScrollArea)
    assert area.verticalScrollBar().value() == 0
    qtbot.waitUntil(lambda: dock.segment.run.isVisible() and dock.scan.height() > 200)
    assert dock.segment.run.visibleRegion().boundingRect() == dock.segment.run.rect()


def test_nothing_is_cut_off_with_all_states_on_a_small_screen(
    dock: CovSegDock, case: OpenCase, qtbot: Any
) -> None:
    dock.session.layers.labels["lesions"].paint((5, 48, 28), 2)
    case.review[:] = np.arange(len(case.review)) % len(Review)
    dock.session.mark_changed(range(len(case.review)))
    for section in dock.sections:
        section.expand(animate=False)
    counts, table, area = dock.correct.review.counts, dock.history.table, dock.findChild(QScrollArea)
    qtbot.waitUntil(lambda: "spread" in counts.text() and dock.history.rows.rowCount() == 1)
    qtbot.waitUntil(lambda: counts.height() >= counts.heightForWidth(counts.width()))
    assert area.widget().width() <= area.viewport().width() and area.horizontalScrollBar().maximum() == 0
    assert table.columnWidth(1) >= table.sizeHintForColumn(1)
    for press in dock.findChildren(QPushButton):
        if press.isVisible() and not isinstance(press, ElidedButton):
            option = QStyleOptionButton()
            press.initStyleOption(option)
            room = press.style().subElementRect(QStyle.SubElement.SE_PushButtonContents, option, press)
            assert press.fontMetrics().horizontalAdvance(press.text()) <= room.width(), press.text()
            assert press.mapTo(dock, press.rect().topRight()).x() < dock.width()
    for box in dock.findChildren(QComboBox):
        assert isinstance(box, ElidedComboBox) or not box.isVisible(), box.toolTip()
