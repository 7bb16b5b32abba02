"""Step 3, Correct: brush and tools, the review of the slices, and what was done."""

from __future__ import annotations

from napari import Viewer
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QSizePolicy,
    QSpinBox,
    QWidget,
)

from napari_covseg.edit import PRESETS, HuRange
from napari_covseg.errors import CovsegError
from napari_covseg.panels.background import show_exception
from napari_covseg.panels.correct.label_row import LabelRow
from napari_covseg.panels.correct.review_row import ReviewRow
from napari_covseg.panels.correct.tool_progress import ToolProgress
from napari_covseg.panels.correct.tools import TOOLS
from napari_covseg.panels.shortcuts import KEYS
from napari_covseg.panels.step import Paragraph, Step, narrow, small

COLUMNS = 4
OWN = "own range"


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
        self.correction = self.session.correction
        self.review = ReviewRow(self.session)
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
        self.size = QDoubleSpinBox()
        self.size.setRange(0.1, 200)
        self.size.setDecimals(1)
        self.size.setSuffix(" mm")
        self.size.setToolTip("Diameter of brush and eraser; [ and ] make it smaller and larger.")
        self.size.setKeyboardTracking(False)
        narrow(self.size, 66)
        self.preset = QComboBox()
        for name, hu_range in PRESETS.items():
            self.preset.addItem(name.capitalize(), hu_range)
        self.preset.addItem(OWN.capitalize(), None)
        self.preset.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.preset.setToolTip("HU of what is painted.")
        self.low, self.high = QSpinBox(), QSpinBox()
        for end, which in ((self.low, "Lowest"), (self.high, "Highest")):
            end.setRange(-2000, 4000)
            end.setSingleStep(10)
            end.setKeyboardTracking(False)
            narrow(end, 48)
            end.setToolTip(f"{which} HU that brush and eraser change.")

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
        grid = QGridLayout()
        grid.setSpacing(3)
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
        self.measure.clicked.connect(self.session.measuring.toggle)
        self.session.measuring.measured.connect(self._on_measured)
        self.refine.clicked.connect(self.session.refining.refine)
        correction.changed.connect(self._on_changed)
        correction.working.connect(self._on_changed)
        self.session.case_changed.connect(self._on_changed)

    def _on_measured(self, text: str) -> None:
        self.measured.setText(text)
        self.measure.setChecked(self.session.measuring.active)

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
            show_exception(error)
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
        widgets = (self.size, self.low, self.high)
        for widget in widgets:
            widget.blockSignals(True)
        in_mm = case is None or case.case.spacing is not None
        self.size.setSuffix(" mm" if in_mm else " px")
        self.size.setValue(correction.brush_mm)
        self.size.setEnabled(case is not None)
        self.low.setValue(correction.hu_range.low)
        self.high.setValue(correction.hu_range.high)
        for widget in widgets:
            widget.blockSignals(False)
        known = [index for index, hu_range in enumerate(PRESETS.values()) if hu_range == correction.hu_range]
        self.preset.setCurrentIndex(known[0] if known else self.preset.count() - 1)
