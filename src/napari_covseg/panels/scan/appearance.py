"""What the scan looks like, where a person can correct it, and how the model sees it."""

from __future__ import annotations

from typing import Any

import numpy as np
from qtpy.QtCore import QPoint, Qt, Signal
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QDialog, QFormLayout, QLabel, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_covseg.errors import CovsegError
from napari_covseg.models.preparation import Preparation, as_shown
from napari_covseg.panels.background import errors_shown
from napari_covseg.panels.learn.learning import Learning
from napari_covseg.panels.session import Session
from napari_covseg.panels.signs import warning
from napari_covseg.panels.step import ElidedComboBox, Paragraph, button, caption, fill, row, show_in_place
from napari_covseg.scans import VALUES, Values
from napari_covseg.scans.appearance import CHOICES, Appearance

LOOKS = "It looks otherwise"
AS_IT_LOOKS = "as it looks"
_YES_NO = {False: "no", True: "yes"}
FIELDS: dict[str, tuple[str, dict[Any, str], str]] = {
    "kind": ("Kind", {}, "Only a chest CT is labelled without asking again."),
    "contrast": (
        "Contrast",
        {None: "not known"},
        "What grey values mean: a model equalises the contrast itself, unless that was done before.",
    ),
    "turned": (
        "Lies",
        {0: "upright", 90: "90° counter-clockwise", 180: "upside down", 270: "90° clockwise"},
        "How the picture is turned; upright has the spine below. A model is shown it upright.",
    ),
    "inverted": ("Inverted", _YES_NO, "Whether air is white. A model is shown air in black."),
    "cropped": (
        "Cropped",
        _YES_NO,
        "Whether it is cropped to the lungs. A model is then shown a margin around it.",
    ),
}
"""Caption, the words for the values where they are no words, and the tooltip."""

SIDE = 420  # pixels on the screen
FOOT = 24  # pixels of the viewer's status bar


class AppearancePart(QWidget):
    """Sentences on what the scan looks like, lists to say otherwise, and what the model sees of it.

    Parameters
    ----------
    session : Session
    learning : Learning
        Knows the model in use.

    Signals
    -------
    values_said : str, str, str or None
        Path and series to read again, and what their values are.
    """

    values_said = Signal(str, str, object)

    def __init__(self, session: Session, learning: Learning) -> None:
        super().__init__()
        self._session = session
        self.sentences = Paragraph()
        self.sentences.setToolTip(
            "What the scan looks like, from its pixels; of an X-ray also what its file says."
        )
        self.boxes = {name: self._box(name) for name in FIELDS}
        self.captions = {name: caption(FIELDS[name][0]) for name in FIELDS}
        self.values = ElidedComboBox(
            "What the values of the file are. The scan is read again, into a case of its own."
        )
        for text, value in ((AS_IT_LOOKS, None), *((value, value) for value in VALUES)):
            self.values.addItem(text, value)
        self.otherwise = button(
            LOOKS, "Say what the scan is where it was taken for something else.", checkable=True
        )
        self.show_model = button(
            "What the model sees", "The slice on screen as the model is shown it, in a window of its own."
        )
        self.model_view = ModelView(session, learning, self)
        self.choices = QWidget()
        self.choices.setVisible(False)
        form = QFormLayout(self.choices, verticalSpacing=4)
        form.setContentsMargins(0, 0, 0, 0)
        for name, box in self.boxes.items():
            form.addRow(self.captions[name], box)
        form.addRow(caption("Values"), self.values)
        fill(self, self.sentences, row(self.otherwise, self.show_model), self.choices)
        self._reflect()
        self.values.activated.connect(lambda index: self._on_values(self.values.itemData(index)))
        self.otherwise.toggled.connect(self.choices.setVisible)
        self.show_model.clicked.connect(self.model_view.open_beside)
        session.case_changed.connect(self._reflect)
        session.appearance_changed.connect(self._reflect)
        session.busy_changed.connect(self._on_busy)

    def _box(self, name: str) -> ElidedComboBox:
        box = ElidedComboBox()
        box.addItem(AS_IT_LOOKS, None)
        for value in CHOICES[name]:
            box.addItem(word(name, value), value)
        box.activated.connect(lambda index: self._on_said(name, box.itemData(index)))
        return box

    def _reflect(self) -> None:
        case = self._session.case
        show_in_place(self, case is not None)
        self._on_busy(self._session.busy_with)
        if case is None:
            return
        found, appearance, said = case.found, case.appearance, case.case.overrides
        self.sentences.setText(in_rich_text(appearance))
        self.values.setItemText(0, f"{AS_IT_LOOKS}: {appearance.intensity}")
        for name, box in self.boxes.items():
            shown = name == "kind" or appearance.intensity == "grey"
            box.setVisible(shown)
            self.captions[name].setVisible(shown)
            with signals_blocked(box):
                box.setCurrentIndex(box.findData(said[name]) if name in said else 0)
            box.setItemText(0, f"{AS_IT_LOOKS}: {word(name, getattr(found, name))}")

    def _on_busy(self, what: str) -> None:
        case = self._session.case
        why = ""
        if case is not None and case.read_only:
            why = (
                f" {case.held_by} has the case open."
                if case.held_by
                else " The case is open only to look at."
            )
        self.values.setEnabled(case is not None and bool(case.case.header["path"]) and not what)
        for name, box in self.boxes.items():
            box.setEnabled(case is not None and not case.read_only and not what)
            box.setToolTip(f"{FIELDS[name][2]}{why}")

    def _on_said(self, name: str, value: Any) -> None:
        case = self._session.case
        if case is None:
            return
        said = {field: kept for field, kept in case.case.overrides.items() if field != name}
        if value is not None:
            said[name] = value
        if said == case.case.overrides:
            return
        with errors_shown():
            case.override_appearance(said)
        self._session.appearance_changed.emit()

    def _on_values(self, value: Values | None) -> None:
        case = self._session.case
        self.values.setCurrentIndex(0)  # of the case that is open nothing changes
        if case is not None:
            header = case.case.header
            series = header.get("series") or header["series_uid"]  # the first is newer than some cases
            self.values_said.emit(header["path"], series, value)


def word(name: str, value: Any) -> str:
    """Return what a person calls a value of a field of `Appearance`."""
    return FIELDS[name][1].get(value, str(value))


def in_rich_text(appearance: Appearance) -> str:
    """Return the sentences on an appearance, with those that say something unusual seen to matter."""
    remarks = appearance.remarks()
    usual = " ".join(sentence for sentence in appearance.sentences() if sentence not in remarks)
    return "<br>".join([*filter(None, [usual]), *map(warning, remarks)])


class ModelView(QDialog):
    """Shows one slice, follows the one on screen, and goes with the case.

    Parameters
    ----------
    session : Session
    learning : Learning
        Knows the model in use.
    parent : QWidget
    """

    def __init__(self, session: Session, learning: Learning, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self._session = session
        self._learning = learning
        self.setWindowTitle("What the model sees")
        self.picture = QLabel()
        self.picture.setFixedSize(SIDE, SIDE)
        self.caption = Paragraph()
        layout = QVBoxLayout(self)
        layout.setContentsMargins(8, 8, 8, 8)
        layout.addWidget(self.picture)
        layout.addWidget(self.caption)
        layout.setSizeConstraint(QVBoxLayout.SizeConstraint.SetFixedSize)
        session.case_changed.connect(self.hide)
        for signal in (session.slice_changed, session.appearance_changed, learning.changed):
            signal.connect(self._on_changed)

    def open_beside(self) -> None:
        """Show the window and what it is for."""
        if not self.isVisible():
            self.show()
            self._on_changed()
            self.adjustSize()
            viewer = self.parentWidget().window()  # over its lists, which leaves the slice free
            corner = viewer.mapToGlobal(QPoint(0, viewer.height()))
            self.move(corner.x(), corner.y() - self.frameGeometry().height() - FOOT)
        self.raise_()

    def _on_changed(self) -> None:
        case, model = self._session.case, self._learning.model
        if not self.isVisible() or case is None:
            return
        self.picture.clear()
        if model is None:
            self.caption.setText("There is no model: install a model file in the Segment step.")
            return
        z = self._session.slice_on_screen
        try:
            preparation = Preparation.from_card(model.card.preparation)
        except CovsegError as error:
            self.caption.setText(str(error))
            return
        shown = np.ascontiguousarray(as_shown(case.voxels[z], case.appearance, preparation))
        size = len(shown)
        image = QImage(shown.tobytes(), size, size, size, QImage.Format.Format_Grayscale8)
        smooth = Qt.TransformationMode.SmoothTransformation
        self.picture.setPixmap(
            QPixmap.fromImage(image.scaled(SIDE, SIDE, Qt.AspectRatioMode.KeepAspectRatio, smooth))
        )
        done = what_is_done(case.appearance, preparation)
        self.caption.setText(f"Slice {z + 1} as {model.card.id} is shown it: {done}")


def what_is_done(appearance: Appearance, preparation: Preparation) -> str:
    """Return what is done to a slice before a model sees it, for a person."""
    done = [f"{preparation.size} × {preparation.size} pixels"]
    if appearance.intensity == "HU":
        low, high = preparation.clip_hu
        done.append(f"{low:.0f} to {high:.0f} HU")
    else:
        done += ["turned upright"] * bool(appearance.turned)
        done += ["air made black"] * appearance.inverted
        done += ["with a margin"] * appearance.cropped
    if preparation.clahe_clip > 0:
        done.append("contrast left as it is" if appearance.equalised else "contrast equalised")
    crop = " Of this it sees the box around the lungs, once they are found."
    return ", ".join(done) + "." + crop * (preparation.crop == "lungs")
