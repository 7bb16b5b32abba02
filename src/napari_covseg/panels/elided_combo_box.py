"""A list to choose from that ends in an ellipsis where it is too narrow."""

from __future__ import annotations

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QPaintEvent
from qtpy.QtWidgets import QComboBox, QSizePolicy, QStyle, QStyleOptionComboBox, QStylePainter, QWidget


class ElidedComboBox(QComboBox):
    """A list that a narrow dock can shorten, and that says so by an ellipsis."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
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
