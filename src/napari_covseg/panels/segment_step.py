"""Step 2, Segment: a model labels the scan, from the slice on screen outwards."""

from __future__ import annotations

from napari import Viewer
from napari.utils.notifications import show_error
from qtpy.QtWidgets import QComboBox, QFileDialog, QSizePolicy, QWidget

from napari_covseg.cases import Review
from napari_covseg.errors import CovsegError
from napari_covseg.models.catalogue import ModelEntry, available, find
from napari_covseg.panels.model_facts import model_details, model_facts
from napari_covseg.panels.progress_row import ProgressRow
from napari_covseg.panels.session import Session
from napari_covseg.panels.step import Paragraph, Step, button, caption

DEVICES = {
    "auto": ("Automatic", "The graphics card if there is one that fits, otherwise the processor."),
    "cuda": ("NVIDIA graphics card (CUDA)", "Fastest. Needs an NVIDIA card and a PyTorch built for it."),
    "mps": ("Apple graphics (MPS)", "For Macs with an Apple chip."),
    "cpu": (
        "Processor (CPU)",
        "Works everywhere, slower. It runs at low priority, so that the viewer stays smooth.",
    ),
}


class SegmentStep(Step):
    """Chooses a model and a device, runs it, and shows how far it is.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "2  Segment"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._entries: list[ModelEntry] = list(available())
        self._build_choices()
        self._build_run()
        self._fill_models()
        self._on_model()
        self._on_device()
        self._on_busy(self.session.busy_with)
        self._connect()

    def _build_choices(self) -> None:
        self.model = QComboBox()
        self.model.setToolTip("The model that labels lungs and lesions.")
        self.model.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.open_model = button("…", "Open a model file (.safetensors).")
        self.open_model.setFixedWidth(28)
        self.card = Paragraph(small=True)
        self.device = QComboBox()
        self.device.setToolTip("Where the model runs.")
        self.device.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        for index, (value, (name, meaning)) in enumerate(DEVICES.items()):
            self.device.addItem(name, value)
            self.device.setItemData(index, meaning, 3)  # Qt.ToolTipRole
        self.add_row(caption("Model"), self.model, self.open_model, stretch=1)
        self.column.addWidget(self.card)
        self.add_row(caption("Device"), self.device, stretch=1)

    def _build_run(self) -> None:
        self.run = button(
            "Run", "Label the scan, beginning with the slice on screen. What you painted stays as it is."
        )
        self.free_gpu = button(
            "Free GPU",
            "Give the graphics memory back for other programs; the next run loads the model again.",
        )
        self.progress = ProgressRow(self.session, "segment", "Slices that are finished stay.")
        self.status = Paragraph()
        self.status.setToolTip("Where the labels of the slice on screen come from.")
        self.add_row(self.run, self.free_gpu, stretch=0)
        self.column.addWidget(self.progress)
        self.column.addWidget(self.status)

    def _connect(self) -> None:
        self.model.currentIndexChanged.connect(self._on_model)
        self.open_model.clicked.connect(self._on_open_model)
        self.device.currentIndexChanged.connect(self._on_device)
        self.run.clicked.connect(self._on_run)
        self.free_gpu.clicked.connect(self._on_free_gpu)
        self.session.busy_changed.connect(self._on_busy)
        self.session.case_changed.connect(self._on_case_changed)
        self.session.labels_changed.connect(self._on_labels_changed)
        self.session.slice_changed.connect(self._on_labels_changed)

    @property
    def chosen(self) -> ModelEntry | None:
        """The model that is chosen, None if there is none at all."""
        index = self.model.currentIndex()
        return self._entries[index] if 0 <= index < len(self._entries) else None

    def _fill_models(self) -> None:
        self.model.clear()
        self.model.addItems([entry.card.title for entry in self._entries])
        if not self._entries:
            self.model.addItem("no model installed")

    def _on_open_model(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a model", filter="Models (*.safetensors)")
        if path:
            self.add_model(path)

    def add_model(self, path: str) -> None:
        """Offer, and choose, a model from a file."""
        try:
            entry = find(path)
        except CovsegError as error:
            show_error(str(error))
            return
        self._entries.append(entry)
        self._fill_models()
        self.model.setCurrentIndex(len(self._entries) - 1)

    def _on_model(self) -> None:
        entry = self.chosen
        self.card.setText(model_facts(entry.card) if entry else "Choose a model file with “…”.")
        self.card.setToolTip(model_details(entry.card) if entry else "")
        self.session.learning.choose(entry, self.device.currentData() or "auto")

    def _on_device(self) -> None:
        self.device.setToolTip(DEVICES[self.device.currentData()][1])
        self.session.learning.choose(self.chosen, self.device.currentData())

    def _on_run(self) -> None:
        entry = self.chosen
        if entry is None:
            show_error("There is no model: open a model file with the button beside the list.")
            return
        in_use = self.session.learning.in_use
        learned = in_use != entry.card.id and in_use != str(entry.path)
        self.session.predict(in_use, in_use if learned else entry.card.title, self.device.currentData())

    def _on_free_gpu(self) -> None:
        self.session.work.free_gpu()

    def _on_busy(self, what: str) -> None:
        self.run.setEnabled(not what and self.session.case is not None)
        self._on_labels_changed()

    def _on_case_changed(self) -> None:
        entry = self.chosen
        if self.session.case is not None and entry is not None:
            # the first slice comes at once when the model is loaded by then
            self.session.warm_up(self.session.learning.in_use, self.device.currentData())
        self._on_busy(self.session.busy_with)

    def _on_labels_changed(self) -> None:
        self.status.setText(status_of_slice(self.session))


def status_of_slice(session: Session) -> str:
    """Return where the labels of the slice on screen come from."""
    case = session.case
    if case is None:
        return "Open a scan first."
    z = session.slice_on_screen
    said = {
        Review.UNTOUCHED: "no labels yet",
        Review.PREDICTED: f"predicted by {session.predicted_by or 'a model'}, not reviewed",
        Review.CORRECTED: "corrected by a person",
        Review.ACCEPTED: "accepted by a person",
    }
    return f"Slice {z + 1}: {said[Review(int(case.review[z]))]}"
