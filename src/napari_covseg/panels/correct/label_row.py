"""The labels of the layer that is worked on: choose one, lock some."""

from __future__ import annotations

from qtpy.QtWidgets import QCheckBox, QGridLayout, QPushButton, QWidget

from napari_covseg.labels import GROUPS, Group, Label
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.step import small

SHORT = {
    "lesion": "Lesion",
    "ground-glass": "GGO",
    "consolidation": "Consol.",
    "pleural effusion": "Effusion",
    "right lung": "Right",
    "left lung": "Left",
    "lung, side undetermined": "Lung",
}


class LabelRow(QWidget):
    """A button in the colour of each label, with a lock below.

    Parameters
    ----------
    correction : Correction
    """

    def __init__(self, correction: Correction) -> None:
        super().__init__()
        self._correction = correction
        self._group: Group | None = None
        self.buttons: dict[int, QPushButton] = {}
        self.locks: dict[int, QCheckBox] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(3)
        self._grid.setVerticalSpacing(1)
        self._on_changed()
        correction.changed.connect(self._on_changed)

    def _on_changed(self) -> None:
        correction = self._correction
        if correction.group != self._group:
            self._group = correction.group
            self._fill(GROUPS[self._group])
        for value, press in self.buttons.items():
            press.setChecked(value == correction.value)
            press.setEnabled(correction.layer is not None)
            lock = self.locks[value]
            lock.blockSignals(True)
            lock.setChecked(correction.is_locked(value))
            lock.blockSignals(False)
            lock.setEnabled(correction.layer is not None)

    def _fill(self, labels: tuple[Label, ...]) -> None:
        for widget in (*self.buttons.values(), *self.locks.values()):
            self._grid.removeWidget(widget)
            widget.deleteLater()
        self.buttons.clear()
        self.locks.clear()
        for column, label in enumerate(labels):
            press = small(SHORT[label.name], str(label.value), f"Paint {label.name}.", checkable=True)
            colour = "rgb({}, {}, {})".format(*label.colour)
            press.setStyleSheet(
                f"QPushButton {{ border-bottom: 3px solid {colour}; }} "
                f"QPushButton:checked {{ background: {colour}; color: black; }}"
            )
            press.clicked.connect(lambda _=False, value=label.value: self._correction.choose_label(value))
            lock = QCheckBox("lock")
            lock.setToolTip(f"No brush and no tool changes {label.name}, or makes more of it.")
            lock.toggled.connect(lambda on, value=label.value: self._correction.lock(value, on))
            self.buttons[label.value], self.locks[label.value] = press, lock
            self._grid.addWidget(press, 0, column)
            self._grid.addWidget(lock, 1, column)
