"""The part of the Segment step that says how a model is asked."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import QCheckBox, QDoubleSpinBox, QFormLayout, QMenu, QSizePolicy, QToolButton, QWidget

from napari_covseg.panels.elided_combo_box import ElidedComboBox
from napari_covseg.panels.segment.model_choices import ModelChoice
from napari_covseg.predict.options import PredictOptions, Tta

TTA: dict[Tta, tuple[str, str]] = {
    "card": ("as the model says", "What its card recommends."),
    "none": ("no", "Each slice is looked at once: fastest."),
    "lungs": ("the lungs again, turned", "A second look, only around the lungs: half as long again."),
    "flip": ("left and right", "The mean over the slice and its mirror image: twice as long."),
    "flips": ("all four", "The mean over the slice and all its mirror images: four times as long."),
}


class OptionsPart(QWidget):
    """Threshold, mirror images, further models, smallest finding, uncertainty.

    Signals
    -------
    changed
        A person has changed something.
    """

    changed = Signal()

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._in_ml = True
        self._others: dict[str, QAction] = {}
        self._build()
        form = QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 4)
        form.setVerticalSpacing(4)
        form.addRow("Lesion from", self.threshold)
        form.addRow("Mirror images", self.tta)
        form.addRow("Together with", self.others)
        form.addRow("Smallest finding", self.smallest)
        form.addRow(self.uncertainty)
        self.measure_in_ml(True)
        self.offer([], None)
        for signal in (self.threshold.valueChanged, self.tta.currentIndexChanged, self.smallest.valueChanged):
            signal.connect(lambda *_: self.changed.emit())
        self.uncertainty.toggled.connect(lambda _: self.changed.emit())

    def _build(self) -> None:
        self.threshold = QDoubleSpinBox()
        self.threshold.setRange(0.0, 1.0)
        self.threshold.setSingleStep(0.05)
        self.threshold.setSpecialValueText("the model's own")
        self.threshold.setToolTip(
            "Probability from which a voxel is a lesion: lower finds more, higher is more certain."
        )
        self.tta = ElidedComboBox()
        for index, (way, (name, meaning)) in enumerate(TTA.items()):
            self.tta.addItem(name, way)
            self.tta.setItemData(index, meaning, 3)  # Qt.ToolTipRole
        self.tta.setToolTip("Mirror images that are labelled as well; the mean over all is more certain.")
        self.others = QToolButton()
        self.others.setPopupMode(QToolButton.ToolButtonPopupMode.InstantPopup)
        self.others.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.others.setMenu(QMenu(self.others))
        self.others.setToolTip("Further models: the mean of all is labelled. They have to find the same.")
        self.smallest = QDoubleSpinBox()
        self.smallest.setSpecialValueText("any")
        self.uncertainty = QCheckBox("Show where the model is unsure")
        self.uncertainty.setToolTip(
            "A layer that comes with the labels: how far mirror images and models disagree or, where there "
            "is only one opinion, how undecided that is. It takes a byte per voxel."
        )

    @property
    def options(self) -> PredictOptions:
        """What is asked for now."""
        smallest = self.smallest.value()
        return PredictOptions(
            threshold=self.threshold.value() or None,
            tta=self.tta.currentData(),
            also=tuple(name for name, action in self._others.items() if action.isChecked()),
            min_ml=smallest if self._in_ml else 0.0,
            min_pixels=0 if self._in_ml else round(smallest),
            uncertainty=self.uncertainty.isChecked(),
        )

    def measure_in_ml(self, known: bool) -> None:
        """Ask for the smallest finding in ml, or in pixels of a slice where sizes are not known."""
        if known != self._in_ml:
            self.smallest.setValue(0)  # of another unit
        self._in_ml = known
        self.smallest.setDecimals(2 if known else 0)
        self.smallest.setRange(0, 100 if known else 10_000)
        self.smallest.setSingleStep(0.05 if known else 10)
        self.smallest.setSuffix(" ml" if known else " pixels")
        self.smallest.setToolTip(
            "Findings of less are dropped once all slices are labelled."
            if known
            else "Findings of fewer pixels in a slice are dropped. The size of a pixel is not known here."
        )

    def offer(self, choices: Sequence[ModelChoice], chosen: ModelChoice | None) -> None:
        """Offer the models that can speak together with the chosen one; those that were taken stay so."""
        taken = {name for name, action in self._others.items() if action.isChecked()}
        menu = self.others.menu()
        menu.clear()
        self._others = {}
        for choice in choices:
            if chosen is None or choice == chosen or set(choice.card.outputs) != set(chosen.card.outputs):
                continue
            action = menu.addAction(choice.title)
            action.setCheckable(True)
            action.setChecked(choice.name in taken)
            action.toggled.connect(self._on_others)
            self._others[choice.name] = action
        self.others.setEnabled(bool(self._others))
        self._show_others()

    def _on_others(self) -> None:
        self._show_others()
        self.changed.emit()

    def _show_others(self) -> None:
        count = sum(action.isChecked() for action in self._others.values())
        none = "no other model" if self._others else "no other model finds the same"
        self.others.setText(f"{count} other model{'s' if count > 1 else ''}" if count else none)
