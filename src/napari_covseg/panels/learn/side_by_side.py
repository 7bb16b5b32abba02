"""Three slices as the parent and as the new version label them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import QGridLayout, QLabel, QWidget

from napari_covseg.cases import OpenCase
from napari_covseg.cases.versions import Versions
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import ModelProposed
from napari_covseg.labels import GROUPS
from napari_covseg.metrics import dice
from napari_covseg.panels.layers import WINDOWS, grey_limits

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

SLICES = 3
SIZE = 80  # pixels on the screen

Slice = npt.NDArray[np.uint8]


class SideBySide(QWidget):
    """A column for each slice; corrected, parent and new version below each other.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.pictures: list[list[QLabel]] = []
        self.notes: list[QLabel] = []
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(2)
        for row, name in enumerate(("before", "after")):
            side = QLabel(name)
            side.setStyleSheet("font-size: 10px;")
            grid.addWidget(side, row, 0)
            self.pictures.append([])
            for column in range(SLICES):
                picture = QLabel()
                picture.setFixedSize(QSize(SIZE, SIZE))
                picture.setToolTip(f"The model's findings {name} learning; yours are drawn in white.")
                grid.addWidget(picture, row, column + 1)
                self.pictures[row].append(picture)
        for column in range(SLICES):
            note = QLabel()
            note.setStyleSheet("font-size: 10px;")
            note.setAlignment(Qt.AlignmentFlag.AlignCenter)
            grid.addWidget(note, 2, column + 1)
            self.notes.append(note)

    def compare(self, proposal: ModelProposed) -> None:
        """Have both models label three slices, those that decided first, and draw them."""
        case, model = self._session.case, self._session.learning.model
        if case is None or model is None or not model.card.lesions:
            return
        value = model.card.lesions[0].value  # of a label that the model knows; there are no hints for it
        scores: list[dict[int, float]] = [{} for _ in range(SLICES)]
        for widgets in (*self.pictures, self.notes):
            for widget in widgets:
                widget.clear()
        chosen = self._slices(case, proposal.model_id)
        nothing = np.zeros(case.case.shape[1:], np.bool_)
        for column, z in enumerate(chosen):
            for row, name in enumerate((self._session.learning.in_use, proposal.model_id)):

                def draw(run_id: str, row: int = row, column: int = column, z: int = z) -> None:
                    lesions = case.case.run(run_id).read_slice(z)[1]
                    truth = case.live["lesions"][z]
                    self.pictures[row][column].setPixmap(picture(case, z, lesions, truth))
                    scores[column][row] = dice(lesions > 0, truth > 0)
                    said = " → ".join(f"{scores[column][r]:.2f}" for r in sorted(scores[column]))
                    self.notes[column].setText(f"{z + 1}: {said}")

                self._session.refining.ask(name, z, value, nothing, nothing, draw)

    def _slices(self, case: OpenCase, version_id: str) -> list[int]:
        try:
            seen = Versions(self._session.workspace).get(version_id).learned_from.get(case.id)
        except CovsegError:
            seen = None
        known = [] if seen is None else [*seen.held_out, *seen.learned]
        return known[:SLICES]


def picture(case: OpenCase, z: int, lesions: Slice, truth: Slice) -> QPixmap:
    """Return a slice with a model's findings in colour and the outline of a person's in white."""
    voxels = case.voxels[z]
    low, high = WINDOWS["Lung"].limits if case.case.intensity == "HU" else grey_limits(case.voxels)
    grey = np.clip((voxels - low) / (high - low) * 255, 0, 255).astype(np.uint8)
    pixels = np.repeat(grey[..., None], 3, axis=2)
    for label in GROUPS["lesions"]:
        here = lesions == label.value
        pixels[here] = (pixels[here] // 2 + np.array(label.colour) // 2).astype(np.uint8)
    pixels[outline(truth > 0)] = 255
    pixels = np.ascontiguousarray(pixels)
    height, width = grey.shape
    image = QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(
        image.scaled(
            SIZE, SIZE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
        )
    )


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask that touch what is not in it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)
