"""A window beside the viewer that shows the slice on screen as the model is shown it."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QDialog, QLabel, QVBoxLayout, QWidget

from napari_covseg.errors import CovsegError
from napari_covseg.models.preparation import Preparation
from napari_covseg.panels.session import Session
from napari_covseg.panels.step import Paragraph
from napari_covseg.predict.stand import as_shown
from napari_covseg.scans.appearance import Appearance

SIDE = 420  # pixels on the screen
FOOT = 24  # pixels of the viewer's status bar


class ModelView(QDialog):
    """Shows one slice, follows the one on screen, and goes with the case.

    Parameters
    ----------
    session : Session
    parent : QWidget
    """

    def __init__(self, session: Session, parent: QWidget) -> None:
        super().__init__(parent, Qt.WindowType.Tool)
        self._session = session
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
        for signal in (session.slice_changed, session.appearance_changed, session.learning.changed):
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
        case, model = self._session.case, self._session.learning.model
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
        self.caption.setText(f"Slice {z + 1} as {model.card.title} is shown it: {done}")


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
