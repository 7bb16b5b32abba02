"""Step 2, Segment: a model labels the scan, from the slice on screen outwards."""

from __future__ import annotations

from collections.abc import Sequence

from napari import Viewer
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QTimer, Signal
from qtpy.QtGui import QAction
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QMenu,
    QToolButton,
    QWidget,
)

from napari_covseg.cases.case import Review
from napari_covseg.errors import CovsegError
from napari_covseg.models.catalogue import find
from napari_covseg.models.installed import install
from napari_covseg.panels.background import errors_shown
from napari_covseg.panels.scan.appearance import LOOKS
from napari_covseg.panels.segment.model_list import CardWindow, ModelList
from napari_covseg.panels.segment.models import ModelChoice, model_choices, model_details, model_facts
from napari_covseg.panels.session import Session
from napari_covseg.panels.signs import warning
from napari_covseg.panels.step import (
    SHRINKS,
    ElidedComboBox,
    Paragraph,
    ProgressRow,
    Step,
    bring_into_view,
    button,
    caption,
    folded,
)
from napari_covseg.predict.options import PredictOptions, Tta

DEVICES = {
    "auto": ("Automatic", "The graphics card if there is one that fits, otherwise the processor."),
    "cuda": ("NVIDIA graphics card (CUDA)", "Fastest. Needs an NVIDIA card and a PyTorch built for it."),
    "mps": ("Apple graphics (MPS)", "For Macs with an Apple chip."),
    "cpu": (
        "Processor (CPU)",
        "Works everywhere, slower. It runs at low priority, so that the viewer stays smooth.",
    ),
}

TTA: dict[Tta, tuple[str, str]] = {
    "card": ("as the model says", "What its card recommends."),
    "none": ("no", "Each slice is looked at once: fastest."),
    "lungs": ("the lungs again, mirrored", "A second look, only around the lungs: half as long again."),
    "flip": ("left and right", "The mean over the slice and its mirror image: twice as long."),
    "flips": ("all four", "The mean over the slice and all its mirror images: four times as long."),
}


class SegmentStep(Step):
    """Chooses a model, how and where it is asked, runs it, and shows how far it is.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "2  Segment"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.learning, self.labelling = self.workbench.learning, self.workbench.labelling
        self._refused = False  # to label what is no chest CT; the next click insists
        self._choosing = False
        self._build_run()
        self._build_settings()
        self._reflect_models()
        self._on_device()
        self._on_options()
        self._on_busy(self.session.busy_with)
        self._connect()

    def _build_run(self) -> None:
        self.model = ModelList("The model that labels lungs and lesions.")
        self.read_card = button("Card", "Everything that is known about the model, to read in a window.")
        self.card_window = CardWindow(self)
        self.add_row(caption("Model"), self.model, self.read_card, stretch=1)
        self.run = button(
            "Run", "Label the scan, beginning with the slice on screen. What you painted stays as it is."
        )
        self.free_gpu = button(
            "Free GPU",
            "Give the graphics memory back for other programs; the next run loads the model again.",
        )
        self.refusal = Paragraph()
        self.refusal.setToolTip(f'If it is one after all, say so in "{LOOKS}" of the Scan step.')
        self.progress = ProgressRow(self.session, "segment", "Slices that are finished stay.")
        self.status = Paragraph()
        self.status.setToolTip("Where the labels of the slice on screen come from.")
        self.add_row(self.run, self.free_gpu, stretch=0)
        self.column.addWidget(self.refusal)
        self.column.addWidget(self.progress)
        self.column.addWidget(self.status)
        self._reflect_refusal("")

    def _build_settings(self) -> None:
        self.card = Paragraph(small=True)
        self.device = ElidedComboBox("Where the model runs.")
        for index, (value, (name, meaning)) in enumerate(DEVICES.items()):
            self.device.addItem(name, value)
            self.device.setItemData(index, meaning, 3)  # Qt.ToolTipRole
        self.options = OptionsPart()
        self.column.addWidget(self.card)  # below Run, which is on a low screen without scrolling
        self.add_row(caption("Device"), self.device, stretch=1)
        self.column.addWidget(folded("Options", self.options, "How the model is asked, fold away or open."))

    def _connect(self) -> None:
        self.model.chosen.connect(self._on_model)
        self.model.opening.connect(self._reflect_models)
        self.model.install_requested.connect(self._on_install)
        self.read_card.clicked.connect(self._on_read_card)
        self.device.currentIndexChanged.connect(self._on_device)
        self.options.changed.connect(self._on_options)
        self.run.clicked.connect(self._on_run)
        self.free_gpu.clicked.connect(self.workbench.jobs.free_gpu)
        self.learning.changed.connect(self._on_learning_changed)
        self.session.busy_changed.connect(self._on_busy)
        self.session.case_changed.connect(self._on_case_changed)
        self.session.appearance_changed.connect(lambda: self._reflect_refusal(""))
        self.session.labels_changed.connect(self._on_labels_changed)
        self.session.slice_changed.connect(self._on_labels_changed)

    # --- the model ------------------------------------------------------------------

    @property
    def chosen(self) -> ModelChoice | None:
        """The model that is chosen, None if there is none at all."""
        return self.model.choice

    def install_model(self, path: str) -> None:
        """Copy a model file to where it is always at hand, and choose it."""
        with errors_shown():
            card, _ = install(find(path).card.id, path)  # refused unless it labels
            self._reflect_models()
            if card.id not in [choice.name for choice in self.model.choices]:
                show_error(f"The package has a model called {card.id} already, which stays in use.")
                return
            self.model.choose(card.id)
            show_info(f"Installed {card.id}: {card.title}.")

    def _on_install(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Install a model", filter="Models (*.safetensors)")
        if path:
            self.install_model(path)

    def _reflect_models(self) -> None:
        """List the models that there are now, with the one in use chosen."""
        try:
            workspace = self.session.workspace
        except CovsegError:
            workspace = None
        self.model.fill(model_choices(workspace), self.learning.in_use)
        choice = self.chosen
        self.card.setText(model_facts(choice.card) if choice else "Install a model file: the list offers it.")
        self.card.setToolTip(model_details(choice.card) if choice else "")
        self.model.setToolTip(f"{choice.title}: {choice.place}" if choice else "")
        self.read_card.setEnabled(choice is not None)
        self.options.offer(self.model.choices, choice)
        if choice is not None and self.card_window.isVisible():
            self.card_window.read(choice)

    def _on_model(self, choice: ModelChoice) -> None:
        learning = self.learning
        self._choosing = True  # the list is told once, when all of it is true
        learning.choose(choice.entry, self.device.currentData() or "auto")
        if learning.in_use != choice.name:
            learning.use(choice.name if choice.version else choice.card.id)
        self._choosing = False
        self._reflect_models()
        self._on_options()

    def _on_learning_changed(self) -> None:
        if not self._choosing:
            self._reflect_models()

    def _on_read_card(self) -> None:
        choice = self.chosen
        if choice is not None:
            self.card_window.read(choice)
            self.card_window.show()
            self.card_window.raise_()

    # --- how and where ----------------------------------------------------------------

    def _on_options(self) -> None:
        self.labelling.options = self.options.options

    def _on_device(self) -> None:
        self.device.setToolTip(DEVICES[self.device.currentData()][1])
        self.learning.choose(self.learning.model, self.device.currentData())

    def _on_run(self) -> None:
        choice = self.chosen
        if choice is None:
            show_error("There is no model: install a model file, which the list offers.")
            return
        case = self.session.case
        if case is not None:
            refusal, insists = case.appearance.refusal(case.case.name or "This scan"), self._refused
            self._reflect_refusal(refusal if insists or not refusal else f"{refusal} It was not labelled.")
            if self._refused and not insists:
                return
        title, others = choice.card.id, len(self.options.options.also)
        if others:
            title = f"{title} and {others} other{'s' if others > 1 else ''}"
        device = self.device.currentData()
        self.labelling.start(self.learning.in_use, title, device, anyway=self._refused)

    def _reflect_refusal(self, sentence: str) -> None:
        """Say why the scan was not labelled; another click then labels it. Empty takes that back."""
        self._refused = bool(sentence)
        self.refusal.setText(warning(sentence) if sentence else "")
        self.run.setText("Label it anyway" if sentence else "Run")
        if sentence:
            QTimer.singleShot(0, lambda: bring_into_view(self.refusal))  # once it has its place

    def _on_busy(self, what: str) -> None:
        self.run.setEnabled(not what and self.session.case is not None)
        self._on_labels_changed()

    def _on_case_changed(self) -> None:
        case = self.session.case
        self._reflect_refusal("")
        if case is not None and self.chosen is not None:
            self.options.measure_in_ml(case.case.spacing is not None)
            # the first slice comes at once when the model is loaded by then
            self.labelling.warm_up(self.learning.in_use, self.device.currentData())
        self._on_busy(self.session.busy_with)

    def _on_labels_changed(self) -> None:
        self.status.setText(status_of_slice(self.session, self.labelling.predicted_by))


def status_of_slice(session: Session, predicted_by: str) -> str:
    """Return where the labels of the slice on screen come from."""
    case = session.case
    if case is None:
        return "Open a scan first."
    z = session.slice_on_screen
    said = {
        Review.UNTOUCHED: "no labels yet",
        Review.PREDICTED: f"predicted by {predicted_by or 'a model'}, not reviewed",
        Review.SPREAD: "spread by a tool, not looked at",
        Review.CORRECTED: "corrected by a person",
        Review.ACCEPTED: "accepted by a person",
    }
    return f"Slice {z + 1}: {said[Review(int(case.review[z]))]}"


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
        self.threshold = QDoubleSpinBox(
            minimum=0.0,
            maximum=1.0,
            singleStep=0.05,
            specialValueText="the model's own",
            toolTip="Probability from which a voxel is a lesion: lower finds more, higher is more certain.",
        )
        self.tta = ElidedComboBox(
            "Mirror images that are labelled as well; the mean over all is more certain."
        )
        for index, (tta, (name, meaning)) in enumerate(TTA.items()):
            self.tta.addItem(name, tta)
            self.tta.setItemData(index, meaning, 3)  # Qt.ToolTipRole
        self.others = QToolButton(
            popupMode=QToolButton.ToolButtonPopupMode.InstantPopup,
            sizePolicy=SHRINKS,
            toolTip="Further models: the mean of all is labelled. They have to find the same.",
        )
        self.others.setMenu(QMenu(self.others))
        self.smallest = QDoubleSpinBox(specialValueText="any")
        self.uncertainty = QCheckBox(
            "Show where the model is unsure",
            toolTip="A layer that comes with the labels: how far mirror images and models disagree or, where "
            "there is only one opinion, how undecided that is. It takes a byte per voxel.",
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
