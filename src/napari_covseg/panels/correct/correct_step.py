"""Step 3, Correct: brush and tools, the review of the slices."""

from __future__ import annotations

from napari import Viewer
from napari.utils.notifications import show_error
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QPushButton,
    QSpinBox,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_covseg.edit.hu_range import PRESETS, HuRange
from napari_covseg.errors import CovsegError
from napari_covseg.labels import GROUPS, Group, Label
from napari_covseg.panels.correct.correction import Correction
from napari_covseg.panels.correct.review_strip import ReviewRow
from napari_covseg.panels.correct.tools import TOOLS
from napari_covseg.panels.keys import KEYS
from napari_covseg.panels.step import (
    TIGHT,
    CancelBar,
    ElidedComboBox,
    Paragraph,
    Step,
    narrow,
    show_in_place,
    small,
)

COLUMNS = 4
OWN = "own range"

SHORT = {
    "lesion": "Lesion",
    "ground-glass": "GGO",
    "consolidation": "Consol.",
    "pleural effusion": "Effusion",
    "right lung": "Right",
    "left lung": "Left",
    "lung, side undetermined": "Lung",
}


class CorrectStep(Step):
    """Tools for the labels, and the slices in the order in which a look is worth most.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "3  Correct"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.correction = self.workbench.correction
        self.measuring = self.workbench.measuring
        self.review = ReviewRow(self.session, self.workbench.reviewing)
        self.labels = LabelRow(self.correction)
        self._build_brush()
        self._build_tools()
        self.progress = ToolProgress(self.correction)
        self._lay_out()
        self._on_changed()
        self._connect()

    def _build_brush(self) -> None:
        self.paint = small("Brush", KEYS["paint"], "Paint the chosen label.", checkable=True)
        self.erase = small("Erase", KEYS["erase"], "Erase labels.", checkable=True)
        self.limited = small(
            "Range",
            KEYS["range"],
            "Brush, eraser and Grow change only voxels of a HU range, which is drawn on the image.",
            checkable=True,
        )
        self.volume = small(
            "3-D",
            KEYS["volume"],
            "Brush and tools work on the whole volume, not on the slice.",
            checkable=True,
        )
        self.size = QDoubleSpinBox(
            decimals=1,
            minimum=0.1,
            maximum=200,
            keyboardTracking=False,
            toolTip="Diameter of brush and eraser; [ and ] make it smaller and larger.",
        )
        narrow(self.size, 66)
        self.preset = ElidedComboBox("HU of what is painted.")
        for name, hu_range in PRESETS.items():
            self.preset.addItem(name.capitalize(), hu_range)
        self.preset.addItem(OWN.capitalize(), None)
        self.low, self.high = self._range_end("Lowest"), self._range_end("Highest")

    def _range_end(self, which: str) -> QSpinBox:
        end = QSpinBox(
            minimum=-2000,
            maximum=4000,
            singleStep=10,
            keyboardTracking=False,
            toolTip=f"{which} HU that brush and eraser change.",
        )
        narrow(end, 48)
        return end

    def _build_tools(self) -> None:
        self.tools = {
            known.name: small(known.text, known.key, known.does, checkable=known.click) for known in TOOLS
        }

        self.measure = small(
            "Measure",
            KEYS["measure"],
            "Drag for a distance; click for HU and volume of a finding, or of a disc.",
            checkable=True,
        )
        self.measured = Paragraph(small=True)
        self.refine = small(
            "Refine this slice",
            KEYS["refine"],
            "The model labels the slice again with your strokes on it as hints; they stay as they are.",
        )

    def _lay_out(self) -> None:
        self.column.addWidget(self.review)
        self.column.addWidget(self.labels)
        grid = QGridLayout(spacing=3)
        hand = (self.paint, self.erase, self.volume, self.limited)
        for place, press in enumerate((*hand, *self.tools.values())):
            grid.addWidget(press, place // COLUMNS, place % COLUMNS)
        self.column.addLayout(grid)
        self.add_row(self.size, self.preset, self.low, self.high, stretch=1)
        self.add_row(self.refine, self.measure)
        self.column.addWidget(self.measured)
        self.column.addWidget(self.progress)

    def _connect(self) -> None:
        correction = self.correction
        self.paint.clicked.connect(lambda: correction.paint("paint"))
        self.erase.clicked.connect(lambda: correction.paint("erase"))
        self.limited.clicked.connect(lambda checked: correction.set_range(checked))
        self.volume.clicked.connect(lambda checked: correction.set_volume(checked))
        self.size.valueChanged.connect(self._on_size)
        self.preset.activated.connect(self._on_preset)
        self.low.valueChanged.connect(self._on_ends)
        self.high.valueChanged.connect(self._on_ends)
        for name, press in self.tools.items():
            press.clicked.connect(lambda _=False, name=name: correction.use(name))
        self.measure.clicked.connect(self.measuring.toggle)
        self.measuring.measured.connect(self._on_measured)
        self.refine.clicked.connect(self.workbench.refining.refine)
        correction.changed.connect(self._on_changed)
        correction.working.connect(self._on_changed)
        self.session.case_changed.connect(self._on_changed)

    def _on_measured(self, text: str) -> None:
        self.measured.setText(text)
        self.measure.setChecked(self.measuring.active)

    def _on_size(self, size: float) -> None:
        self.correction.brush_mm = size

    def _on_preset(self, index: int) -> None:
        chosen = self.preset.itemData(index)
        if isinstance(chosen, HuRange):
            self.correction.set_range(True, chosen)

    def _on_ends(self) -> None:
        try:
            self.correction.set_range(self.correction.limited, HuRange(self.low.value(), self.high.value()))
        except CovsegError as error:
            show_error(str(error))
            self._on_changed()

    def _on_changed(self, _: object = None) -> None:
        correction, case = self.correction, self.session.case
        in_hu = case is not None and case.case.intensity == "HU"
        for press, mode in ((self.paint, "paint"), (self.erase, "erase")):
            press.setChecked(correction.mode == mode)
            press.setEnabled(self.session.can_edit)
        self.volume.setChecked(correction.volume)
        self.limited.setChecked(correction.limited)
        for widget in (self.limited, self.preset, self.low, self.high):
            widget.setEnabled(in_hu)
        for press in (self.refine, self.measure):
            press.setEnabled(case is not None)
        self._reflect_numbers()
        for known in TOOLS:
            press = self.tools[known.name]
            press.setChecked(correction.clicking == known.name)
            press.setEnabled(self.session.can_edit and not correction.running)

    def _reflect_numbers(self) -> None:
        correction, case = self.correction, self.session.case
        in_mm = case is None or case.case.spacing is not None
        self.size.setSuffix(" mm" if in_mm else " px")
        self.size.setEnabled(case is not None)
        with signals_blocked(self.size, self.low, self.high):
            self.size.setValue(correction.brush_mm)
            self.low.setValue(correction.hu_range.low)
            self.high.setValue(correction.hu_range.high)
        known = [index for index, hu_range in enumerate(PRESETS.values()) if hu_range == correction.hu_range]
        self.preset.setCurrentIndex(known[0] if known else self.preset.count() - 1)


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
        self._grid.setHorizontalSpacing(3)
        self._grid.setVerticalSpacing(1)
        self._grid.setContentsMargins(0, 0, 0, 0)
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
            with signals_blocked(lock):
                lock.setChecked(correction.is_locked(value))
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
                f"QPushButton {{ {TIGHT} border-bottom: 3px solid {colour}; }} "
                f"QPushButton:checked {{ background: {colour}; color: black; }}"
            )
            press.clicked.connect(lambda _=False, value=label.value: self._correction.choose_label(value))
            lock = QCheckBox(
                "lock", toolTip=f"No brush and no tool changes {label.name}, or makes more of it."
            )
            lock.toggled.connect(lambda on, value=label.value: self._correction.lock(value, on))
            self.buttons[label.value], self.locks[label.value] = press, lock
            self._grid.addWidget(press, 0, column)
            self._grid.addWidget(lock, 1, column)


class ToolProgress(CancelBar):
    """Shows itself while a tool runs.

    Parameters
    ----------
    correction : Correction
    """

    def __init__(self, correction: Correction) -> None:
        super().__init__("How far the tool is.", "Stop the tool; it changes nothing then.")
        self._on_working(correction.running)
        self.cancel.clicked.connect(correction.cancel)
        correction.working.connect(self._on_working)
        correction.progressed.connect(self.go_on)

    def _on_working(self, tool: str) -> None:
        show_in_place(self, bool(tool))
        self.begin(tool)
