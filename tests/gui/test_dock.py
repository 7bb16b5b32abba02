from __future__ import annotations

import re
import threading
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from napari import Viewer
from napari._qt.dialogs.qt_notification import NapariQtNotification
from napari.settings import get_settings
from napari.utils.notifications import show_info
from napari.utils.theme import get_theme
from qtpy.QtCore import QPoint, QRect, Qt
from qtpy.QtGui import QColor, QImage
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
from napari_covseg.jobs.events import Progress
from napari_covseg.panels.dock import CovSegDock
from napari_covseg.panels.keys import STEP_KEYS, shown
from napari_covseg.panels.napari_private import canvas_widget
from napari_covseg.panels.signs import GOOD, WARNING, warning
from napari_covseg.panels.step import FOCUS_STYLE, CancelBar, ElidedButton, ElidedComboBox, Paragraph
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
    scan, _, segment, *_, export = dock.sections
    assert dock.scan.isVisible() and dock.segment.isVisible()
    assert [s.isExpanded() for s in dock.sections[:4]] == [True, False, True, False]
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


@pytest.mark.parametrize("small", [False, True])
def test_a_paragraph_is_as_high_as_what_is_drawn(workbench: tuple[Viewer, CovSegDock], small: bool) -> None:
    files = "phantom chest CT_lungs.nii.gz, phantom chest CT_lungs.tsv, phantom chest CT_lesions.nii.gz"
    text = Paragraph(f"Files: {files}\n12 slices were spread by a tool, and nobody has looked.", small=small)
    text.setParent(workbench[1])
    text.setAlignment(Qt.AlignmentFlag.AlignTop)
    text.show()
    for width in range(200, 330):
        text.resize(width, 300)
        drawn = text.grab().toImage().convertToFormat(QImage.Format.Format_Grayscale8)
        bits = drawn.constBits()
        bits.setsize(drawn.sizeInBytes())
        pixels = np.frombuffer(bits, np.uint8).reshape(drawn.height(), -1)[:, :width]
        last = np.flatnonzero((pixels != pixels[-1, -1]).any(1))[-1]
        assert last < text.heightForWidth(width) <= last + 2 * text.fontMetrics().lineSpacing(), width


def test_all_of_a_long_notification_is_shown(workbench: tuple[Viewer, CovSegDock], qtbot: Any) -> None:
    def toasts() -> list[NapariQtNotification]:
        return canvas_widget(workbench[0]).findChildren(NapariQtNotification)

    def height_of_text(label: Any) -> int:
        room = QRect(0, 0, label.width(), 1000)
        return int(label.fontMetrics().boundingRect(room, Qt.TextFlag.TextWordWrap, label.text()).height())

    show_info("Saved.")
    qtbot.waitUntil(lambda: len(toasts()) == 1)
    threading.Thread(
        target=show_info, args=("A sentence that a model has said of its findings. " * 4,)
    ).start()
    qtbot.waitUntil(lambda: len(toasts()) == 2)
    short, long = sorted(toasts(), key=lambda one: len(one.message.text()))
    qtbot.waitUntil(lambda: long.message.height() >= height_of_text(long.message))
    qtbot.waitUntil(lambda: canvas_widget(workbench[0]).rect().contains(long.geometry()))
    assert long.timer.interval() > 10_000 > 5_000 > short.timer.interval()
    assert not short.property("expanded")


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


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_signs_are_seen_in_the_theme(theme: str) -> None:
    """By the least contrast that WCAG 2.2 asks for signs; words have the theme's own colour."""

    def luminance(colour: tuple[float, ...]) -> float:
        linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in colour[:3]]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    ground = luminance(tuple(part / 255 for part in get_theme(theme).background.as_rgb_tuple()))
    for sign in (WARNING, GOOD):
        bright = luminance(QColor(sign).getRgbF())
        dark, light = sorted((bright, ground))
        assert (light + 0.05) / (dark + 0.05) >= 3, sign
    assert WARNING in FOCUS_STYLE
    assert re.sub("<b .*</b>", "", warning("Tilted.")) == " Tilted."


@pytest.mark.parametrize(("theme", "font"), [("dark", 9), ("light", 12)])
def test_nothing_is_cut_off_with_all_states_on_a_small_screen(
    theme: str, font: int, dock: CovSegDock, case: OpenCase, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(get_settings().appearance, "font_size", font)
    dock.session.viewer.theme = theme
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


def test_a_bar_says_what_goes_on_and_does_not_move_by_itself(qtbot: Any) -> None:
    bar = CancelBar("", "")
    qtbot.addWidget(bar)
    bar.begin("Reading the scan")
    assert bar.bar.text() == "Reading the scan …" and bar.bar.value() == 0
    for progress, full in ((Progress(0, 0, "slices"), 1), (Progress(3, 7, "slices"), 7)):
        bar.go_on(progress)
        assert (bar.bar.minimum(), bar.bar.maximum()) == (0, full)  # of 0 and 0 Qt moves it
