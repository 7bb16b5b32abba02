"""What all steps share: a plain column of rows on one viewer's session, and the widgets in it."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import ceil

from napari import Viewer
from qtpy.QtCore import QEvent, QSize, Qt
from qtpy.QtGui import QIcon, QPaintEvent, QResizeEvent, QTextDocument
from qtpy.QtWidgets import (
    QAbstractSpinBox,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QLayout,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_covseg.jobs.events import Progress
from napari_covseg.panels.keys import shown
from napari_covseg.panels.session import Session, StepName
from napari_covseg.panels.signs import WARNING
from napari_covseg.panels.workbench import workbench_of

RESEARCH_USE = "Research use, not for diagnosis"
WIDTH_HINT = 280
ANY_HEIGHT = 16_777_215  # Qt's own
FOCUS = f"border: 2px solid {WARNING};"
FOCUS_STYLE = (
    "QPushButton:focus, QToolButton:focus, QComboBox:focus, QLineEdit:focus, QAbstractSpinBox:focus, "
    f"QCheckBox:focus, QAbstractItemView:focus {{ {FOCUS} }}"
)
"""Draws what has the keyboard; napari's own style does not."""
TIGHT = "padding: 3px 1px;"
"""Of a button that has little room for its text."""
TABBED = Qt.FocusPolicy.TabFocus
SHRINKS = QSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
"""Of what a narrow dock can make narrower than its text."""


class Step(QWidget):
    """One step of the work.

    Parameters
    ----------
    viewer : Viewer
        The steps of one viewer share its workbench.
    parent : QWidget, optional
    """

    title = ""

    def __init__(self, viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.workbench = workbench_of(viewer)
        self.session = self.workbench.session
        self.column = QVBoxLayout(self)
        self.column.setContentsMargins(4, 2, 4, 6)
        self.column.setSpacing(5)
        self.column.setAlignment(Qt.AlignmentFlag.AlignTop)

    def add_row(self, *widgets: QWidget, stretch: int | None = None) -> QHBoxLayout:
        """Add widgets side by side; the one at index `stretch` takes the room that is left."""
        side_by_side = row(*widgets, stretch=stretch)
        self.column.addLayout(side_by_side)
        return side_by_side


def row(*widgets: QWidget, stretch: int | None = None, spacing: int = 5) -> QHBoxLayout:
    """Return widgets side by side; the one at index `stretch` takes the room that is left."""
    layout = QHBoxLayout(spacing=spacing)
    for index, widget in enumerate(widgets):
        layout.addWidget(widget, 1 if stretch is None or stretch == index else 0)
    return layout


def fill(parent: QWidget, *parts: QWidget | QLayout, spacing: int = 5) -> None:
    """Lay parts below each other in a widget, without a margin."""
    layout = QVBoxLayout(parent, spacing=spacing)
    layout.setContentsMargins(0, 0, 0, 0)
    for part in parts:
        layout.addLayout(part) if isinstance(part, QLayout) else layout.addWidget(part)


def button(text: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a button that says what it does."""
    return QPushButton(text, toolTip=tooltip, checkable=checkable)


def small(text: str, key: str, tooltip: str, *, checkable: bool = False) -> QPushButton:
    """Return a narrow button that shows its key, and leaves the keyboard to the picture.

    Parameters
    ----------
    text : str
        One short word.
    key : str
        As napari writes it; empty for none.
    tooltip : str
    checkable : bool
        Whether it stays down.
    """
    made = button(
        f"{text}  {shown(key)}".rstrip(),
        f"{tooltip} Key: {shown(key)}." if key else tooltip,
        checkable=checkable,
    )
    made.setFocusPolicy(Qt.FocusPolicy.NoFocus)
    made.setMinimumWidth(0)
    made.setSizePolicy(SHRINKS)
    made.setStyleSheet(TIGHT)
    return made


class Paragraph(QLabel):
    """Text that wraps, is exactly as high as it needs, and can be copied.

    Parameters
    ----------
    text : str
    small : bool
        For what is read once.
    """

    def __init__(self, text: str = "", *, small: bool = False) -> None:
        super().__init__()
        self.setWordWrap(True)
        self.setIndent(0)  # in napari's style it would be half a letter, which `heightForWidth` leaves out
        self.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        if small:
            self.setStyleSheet("font-size: 11px;")
        policy = QSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
        policy.setHeightForWidth(True)
        self.setSizePolicy(policy)
        self.setText(text)

    def setText(self, text: str | None) -> None:
        """Show a text; nothing takes no room."""
        if text != self.text():
            super().setText(text)
        show_in_place(self, bool(text))

    def heightForWidth(self, width: int) -> int:
        """Return the height of the wrapped text; QLabel's own is that of a much narrower one."""
        page = QTextDocument()
        page.setDefaultFont(self.font())
        page.setDocumentMargin(0)
        page.setHtml(self.text().replace("\n", "<br>"))
        frame = self.width() - self.contentsRect().width()
        page.setTextWidth(max(width - frame, 1))
        return ceil(float(page.size().height())) + int(frame)

    def sizeHint(self) -> QSize:
        """Return the width that it has and the height that goes with it."""
        return QSize(WIDTH_HINT, self.heightForWidth(WIDTH_HINT))

    def changeEvent(self, event: QEvent) -> None:
        """Ask for another height when the viewer's style sets another font."""
        super().changeEvent(event)
        if event.type() in (QEvent.Type.FontChange, QEvent.Type.StyleChange):
            self.updateGeometry()

    def minimumSizeHint(self) -> QSize:
        """Return a size that a narrow dock can still give."""
        return QSize(WIDTH_HINT // 2, self.fontMetrics().lineSpacing())


def show_in_place(widget: QWidget, visible: bool) -> None:
    """Show or hide a widget; one that has no parent yet comes with it, not as a window of its own.

    Such a window would take the keyboard, and keep the process alive when the viewer's is closed.
    """
    if visible and widget.parentWidget() is None:
        widget.setAttribute(Qt.WidgetAttribute.WA_WState_ExplicitShowHide, False)
    else:
        widget.setVisible(visible)


def bring_into_view(widget: QWidget) -> None:
    """Scroll the dock so that a widget can be seen."""
    around = widget.parentWidget()
    while around is not None:
        if isinstance(around, QScrollArea):
            around.ensureWidgetVisible(widget)
        around = around.parentWidget()


def tab_in_order(widget: QWidget) -> None:
    """Have the tab key go through what lies in a widget as one reads it."""
    for one, other in pairwise(child for child in laid_out(widget) if child.focusPolicy() & TABBED):
        QWidget.setTabOrder(one, other)


def laid_out(widget: QWidget) -> Iterator[QWidget]:
    """Yield a widget and all in it, in the order of their layouts."""
    yield widget
    if isinstance(widget, QScrollArea):
        if widget.widget() is not None:
            yield from laid_out(widget.widget())
    elif widget.layout() is not None:
        yield from _items(widget.layout())


def _items(layout: QLayout) -> Iterator[QWidget]:
    for index in range(layout.count()):
        item = layout.itemAt(index)
        if item.layout() is not None:
            yield from _items(item.layout())
        elif item.widget() is not None:
            yield from laid_out(item.widget())


def folded(title: str, content: QWidget, tooltip: str) -> QCollapsible:
    """Return a part of a step under a title that opens it; it is closed at first."""
    # a triangle in the text has the theme's colour, superqt's icon is black in all
    part = QCollapsible("", expandedIcon=QIcon(), collapsedIcon=QIcon())

    def name(opened: bool) -> None:
        part.setText(f"{'▾' if opened else '▸'}  {title}")

    part.toggled.connect(name)
    name(False)
    part.setDuration(0)
    part.layout().setContentsMargins(0, 0, 0, 0)
    part.layout().setSpacing(0)
    part.toggleButton().setToolTip(tooltip)
    # superqt's own style has no border, not even that of what has the keyboard
    part.toggleButton().setStyleSheet(
        f"QPushButton {{ text-align: left; border: none; }} QPushButton:focus {{ {FOCUS} }}"
    )
    part.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Preferred)
    part.setContent(content)
    # superqt fixes the height when a part opens; what grows later would be cut off
    part.toggled.connect(lambda opened: content.setMaximumHeight(ANY_HEIGHT if opened else 0))
    part.collapse(animate=False)
    return part


def caption(text: str) -> QLabel:
    """Return the word before a control."""
    return QLabel(text)


def narrow(box: QAbstractSpinBox, width: int) -> None:
    """Give a number no more room than it needs; the wheel and the arrow keys still change it."""
    box.setButtonSymbols(QAbstractSpinBox.ButtonSymbols.NoButtons)
    box.setStyleSheet(f"padding: 2px; min-width: {width}px; max-width: {width}px;")


class CancelBar(QWidget):
    """A bar and, beside it, the button *Cancel*.

    Parameters
    ----------
    tells, cancels : str
        What the bar tells and what the button does, for their tooltips.
    """

    def __init__(self, tells: str, cancels: str) -> None:
        super().__init__()
        self.bar = QProgressBar(toolTip=tells)
        self.cancel = button("Cancel", cancels)
        fill(self, row(self.bar, self.cancel, stretch=0))

    def begin(self, what: str) -> None:
        """Say what goes on, without saying how far it is."""
        # A range of nothing would move all the time, without the text, and each of its movements draws
        # the whole window anew: without a graphics card that takes the cores that compute.
        self.bar.setRange(0, 1)
        self.bar.setValue(0)
        self.bar.setFormat(f"{what} …")

    def go_on(self, progress: Progress) -> None:
        """Move the bar."""
        self.bar.setRange(0, max(progress.total, 1))
        self.bar.setValue(progress.done)


class ProgressRow(CancelBar):
    """Shows itself while its step works.

    Parameters
    ----------
    session : Session
    step : {"scan", "segment", "export"}
        Whose work it shows.
    keeps : str
        What stays when one cancels, for the tooltip.
    """

    def __init__(self, session: Session, step: StepName, keeps: str) -> None:
        tells = "How much is done, how fast it goes, and the time that is left."
        super().__init__(tells, f"Stop at once. {keeps}")
        self._session = session
        self._step = step
        self._on_busy(session.busy_with)
        self.cancel.clicked.connect(self._on_cancel)
        session.busy_changed.connect(self._on_busy)
        session.progressed.connect(self._on_progress)

    def _on_busy(self, what: str) -> None:
        mine = bool(what) and self._session.busy_step == self._step
        show_in_place(self, mine)
        self.cancel.setEnabled(mine)
        if mine:
            self.begin(what)

    def _on_progress(self, progress: Progress) -> None:
        if not progress.total or not self.cancel.isEnabled():
            return
        self.go_on(progress)
        last_pass = self._step == "segment" and progress.done == progress.total
        self.bar.setFormat("Last pass in 3-D …" if last_pass else progress_text(progress))

    def _on_cancel(self) -> None:
        self.cancel.setEnabled(False)
        self.bar.setFormat("Stopping …")
        self._session.cancel()


def progress_text(progress: Progress) -> str:
    """Return how far a job is, as a person says it."""
    parts = [f"{progress.done} of {progress.total}"]
    if progress.per_second:
        parts.append(f"{progress.per_second:.1f} {progress.unit}/s")
    if progress.seconds_left is not None:
        left = round(progress.seconds_left)
        parts.append(f"{left // 60}:{left % 60:02d} left")
    return " · ".join(parts)


class ElidedButton(QPushButton):
    """A button whose text a narrow dock can shorten, at its beginning, as that of a path.

    Parameters
    ----------
    tooltip : str
        Is shown below the whole text.
    """

    def __init__(self, tooltip: str) -> None:
        super().__init__(sizePolicy=SHRINKS, toolTip=tooltip)
        self._tooltip = tooltip
        self._whole = ""

    def show_text(self, text: str) -> None:
        """Show a text."""
        self._whole = text
        self.setToolTip(f"{text}\n{self._tooltip}")
        self._shorten()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Show as much of the text as fits."""
        super().resizeEvent(event)
        self._shorten()

    def _shorten(self) -> None:
        room = self.width() - 2 * self.fontMetrics().averageCharWidth()
        self.setText(self.fontMetrics().elidedText(self._whole, Qt.TextElideMode.ElideLeft, room))


class ElidedComboBox(QComboBox):
    """A list that a narrow dock can shorten, and that says so by an ellipsis."""

    def __init__(self, tooltip: str = "") -> None:
        super().__init__(toolTip=tooltip, sizePolicy=SHRINKS)
        self.view().setTextElideMode(Qt.TextElideMode.ElideRight)

    @property
    def shown(self) -> str:
        """The text as it is drawn."""
        return self._shortened(self._option())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the list with the text that fits."""
        painter = QStylePainter(self)
        option = self._option()
        option.currentText = self._shortened(option)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, option)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, option)

    def showPopup(self) -> None:
        """Open the list as wide as its longest line, if the screen allows it."""
        wide = self.view().sizeHintForColumn(0) + 2 * self.view().frameWidth()
        room = self.screen().availableGeometry().width() // 2
        self.view().setMinimumWidth(max(self.width(), min(wide, room)))
        super().showPopup()

    def minimumSizeHint(self) -> QSize:
        """Return a size that a narrow dock can still give."""
        return QSize(60, super().minimumSizeHint().height())

    def _option(self) -> QStyleOptionComboBox:
        option = QStyleOptionComboBox()
        self.initStyleOption(option)
        return option

    def _shortened(self, option: QStyleOptionComboBox) -> str:
        field = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, option, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        text = self.fontMetrics().elidedText(
            self.currentText(), Qt.TextElideMode.ElideRight, max(field.width() - 4, 0)
        )
        return str(text)
