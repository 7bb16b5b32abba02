"""Step 4, Learn: the model learns from corrected slices; a person decides about the new one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from napari import Viewer
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QSizePolicy,
    QSpinBox,
    QVBoxLayout,
    QWidget,
)

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModels
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import ModelProposed, TrainingStep
from napari_covseg.labels import GROUPS
from napari_covseg.metrics import dice
from napari_covseg.panels.layers import WINDOWS, grey_limits
from napari_covseg.panels.learn.learning import EVERY, reviewed_slices
from napari_covseg.panels.step import Paragraph, Step, button, caption, narrow

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

PLOT_HEIGHT = 110
COLOURS = {"lungs": (86, 156, 214), "lesion": (250, 190, 60), "loss": (220, 220, 220)}
OTHER = (225, 60, 100)

SLICES = 3
PICTURE = 80  # pixels on the screen
Slice = npt.NDArray[np.uint8]


class LearnStep(Step):
    """Fine-tunes, shows how it goes, keeps or discards, and goes back to any version.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "4  Learn"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.learning = self.session.learning
        self._build()
        self._lay_out()
        self._on_changed()
        self._connect()

    def _build(self) -> None:
        self.version = QComboBox()
        self.version.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.version.setToolTip(
            "Versions of the chosen model that learned here. None is ever changed. "
            "Proposed is one that nobody has decided about yet."
        )
        self.use = button("Make current", "Label with this version from now on; a proposed one is kept.")
        self.cases = QComboBox()
        self.cases.addItem("this case", False)
        self.cases.addItem("all corrected cases", True)
        self.cases.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.cases.setToolTip("Where the corrected and accepted slices come from.")
        self.minutes = QDoubleSpinBox()
        self.minutes.setRange(0.1, 60)
        self.minutes.setSingleStep(0.5)
        self.minutes.setDecimals(1)
        self.minutes.setValue(0.5)
        self.minutes.setSuffix(" min")
        narrow(self.minutes, 54)
        self.minutes.setToolTip(
            "Time for learning; measuring and writing come on top. Learning ends by itself "
            "after 45 steps, or four for each corrected slice, if these take less time."
        )
        self.start = button("Learn", "Let a copy of the model learn. The model itself never changes.")
        self.cancel = button("Stop", "Stop learning; the best so far is proposed.")
        self.status = Paragraph()
        self.status.setToolTip("What there is to learn from, and how far it is.")
        self.curves = Curves()
        self.curves.hide()
        self.proposal = Proposal(self.session)
        self.by_itself = QCheckBox("Learn as I go, every")
        self.by_itself.setToolTip(
            "After so many accepted slices the model learns for half a minute in the background. "
            "The new version is used if it measures better, and thrown away if not."
        )
        self.every = QSpinBox()
        self.every.setRange(1, 100)
        self.every.setValue(EVERY)
        self.every.setSuffix(" slices")
        narrow(self.every, 54)
        self.every.setToolTip("Accepted slices from one time to the next.")

    def _lay_out(self) -> None:
        self.column.addWidget(self.status)
        self.add_row(caption("From"), self.cases, self.minutes, stretch=1)
        self.add_row(self.start, self.cancel, stretch=0)
        self.column.addWidget(self.curves)
        self.column.addWidget(self.proposal)
        self.add_row(caption("In use"), self.version, self.use, stretch=1)
        self.add_row(self.by_itself, self.every, stretch=0)

    def _connect(self) -> None:
        self.start.clicked.connect(self._on_start)
        self.cancel.clicked.connect(self.learning.cancel)
        self.use.clicked.connect(lambda: self.learning.use(self.version.currentData()))
        self.version.currentIndexChanged.connect(self._on_version)
        self.by_itself.toggled.connect(self._on_by_itself)
        self.every.valueChanged.connect(self._on_by_itself)
        self.learning.changed.connect(self._on_changed)
        self.learning.stepped.connect(self._on_stepped)
        self.learning.proposed.connect(self._on_proposed)
        self.session.labels_changed.connect(self._on_labels)

    def _on_start(self) -> None:
        self.curves.clear()
        self.learning.start(all_cases=self.cases.currentData(), seconds=60 * self.minutes.value())

    def _on_stepped(self, told: TrainingStep) -> None:
        self.curves.show()
        self.curves.add(told)
        self.status.setText(f"Learning: step {told.step} of {told.steps}, {told.seconds:.0f} s")

    def _on_proposed(self, proposal: ModelProposed) -> None:
        self.status.setText("Measured. Compare, then keep the new version or discard it.")

    def _on_by_itself(self) -> None:
        self.learning.every = self.every.value() if self.by_itself.isChecked() else 0

    def _on_changed(self) -> None:
        learning = self.learning
        current = learning.in_use
        self.version.blockSignals(True)
        self.version.clear()
        if learning.model is not None:
            self.version.addItem(f"{learning.base} (as shipped)", learning.base)
        for version in learning.versions():
            made = f"{version.id}, {version.created.astimezone():%d %b %H:%M}"
            undecided = ", proposed" if version.state == ModelState.PROPOSED else ""
            self.version.addItem(made + undecided, version.id)
        self.version.setCurrentIndex(max(self.version.findData(current), 0))
        self.version.blockSignals(False)
        self.proposal.reflect()
        self._on_version()
        self._on_labels()

    def _on_version(self) -> None:
        current = max(self.version.findData(self.learning.in_use), 0)
        self.use.setEnabled(self.version.count() > 0 and self.version.currentIndex() != current)

    def _on_labels(self) -> None:
        case, learning = self.session.case, self.learning
        count = reviewed_slices(case.review) if case is not None else 0
        free = self.session.can_edit and not learning.running and learning.proposal is None
        anywhere = count > 0 or bool(self.cases.currentData())
        self.start.setEnabled(free and anywhere and learning.model is not None)
        self.cancel.setEnabled(learning.running)
        self.minutes.setEnabled(not learning.running)
        if case is None:
            self.status.setText("Open a scan first.")
        elif free:
            slices = f"{count} slice{'s' if count != 1 else ''}"
            hint = "" if count else " Correct or accept a few slices first."
            self.status.setText(f"{slices} of this case to learn from.{hint}")
        elif learning.running and not self.curves.steps:
            self.status.setText("Getting ready …")


class Curves(QWidget):
    """Two plots that follow a fine-tuning; without pyqtgraph, a line of text."""

    def __init__(self) -> None:
        super().__init__()
        self.loss: list[float] = []
        self.steps: list[int] = []
        self.dice: dict[str, list[tuple[int, float]]] = {}
        self.best: int = 0
        self.text = Paragraph(small=True)
        self._plots: dict[str, Any] = {}
        self._lines: dict[str, Any] = {}
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(2)
        for name in ("loss", "Dice, held out"):
            plot = _plot(name)
            if plot is None:
                row.addWidget(self.text)
                break
            row.addWidget(plot)
            self._plots[name] = plot

    def clear(self) -> None:
        """Begin anew."""
        self.loss.clear()
        self.steps.clear()
        self.dice.clear()
        self.best = 0
        self._lines.clear()
        for plot in self._plots.values():
            plot.clear()

    def add(self, told: TrainingStep) -> None:
        """Let the curves grow by a step."""
        if told.loss is not None:
            self.steps.append(told.step)
            self.loss.append(told.loss)
            self._draw("loss", "loss", self.steps, self.loss)
        if told.best:
            self.best = told.step
        for output, value in (told.held_out or {}).items():
            if math.isfinite(value):
                points = self.dice.setdefault(output, [])
                points.append((told.step, value))
                steps, values = zip(*points, strict=True)
                self._draw("Dice, held out", output, list(steps), list(values))
        self.text.setText(f"Step {told.step} of {told.steps}")

    def _draw(self, plot: str, name: str, x: list[int], y: list[float]) -> None:
        if plot not in self._plots:
            return
        if name not in self._lines:
            colour = COLOURS.get(name, OTHER)
            marks = {"symbol": "o", "symbolSize": 4, "symbolBrush": colour} if plot != "loss" else {}
            self._lines[name] = self._plots[plot].plot(
                pen={"color": colour, "width": 1.5}, name=name, **marks
            )
        self._lines[name].setData(x, y)


def _plot(title: str) -> Any:
    try:
        import pyqtgraph
    except ImportError:  # it comes with the extra `desktop`; without it there are numbers
        return None
    plot = pyqtgraph.PlotWidget(background=(32, 35, 41))
    plot.setFixedHeight(PLOT_HEIGHT)
    plot.setMinimumWidth(0)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setTitle(title, size="8pt")
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.getAxis("left").setWidth(30)
    if title != "loss":
        plot.addLegend(offset=(-4, -4), labelTextSize="7pt")
    plot.setToolTip("Goes down while the model learns." if title == "loss" else "Decides which step is kept.")
    return plot


class Proposal(QWidget):
    """Shows itself while a version waits for a decision.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._learning = session.learning
        self.scores = Paragraph()
        self.scores.setToolTip("Dice before and after, on slices that the model did not learn from.")
        self.slices = SideBySide(session)
        self.keep = button(
            "Keep",
            "Use the new version from now on, and label the scan again with it. "
            "Voxels that you painted or erased, and accepted slices, stay as they are.",
        )
        self.discard = button("Discard", "Go on with the model as it was.")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.scores)
        column.addWidget(self.slices)
        row = QHBoxLayout()
        row.addWidget(self.keep)
        row.addWidget(self.discard)
        column.addLayout(row)
        self.keep.clicked.connect(self._learning.keep)
        self.discard.clicked.connect(self._on_discard)
        self._learning.proposed.connect(self._on_proposed)
        self.hide()

    def reflect(self) -> None:
        """Hide when nothing waits for a decision."""
        if self._learning.proposal is None:
            self.hide()

    def _on_proposed(self, proposal: ModelProposed) -> None:
        self.scores.setText(scores_said(proposal))
        self.show()
        self.slices.compare(proposal)

    def _on_discard(self) -> None:
        self._learning.discard()


def scores_said(proposal: ModelProposed) -> str:
    """Return the scores before and after, and what they speak for, as rich text."""
    rows = []
    for part, scores in proposal.scores.items():
        for output, before in scores["before"].items():
            after = scores["after"].get(output, float("nan"))
            colour = "#80d080" if after >= before else "#e0a030"
            rows.append(
                f"<tr><td>{part}, {output}&nbsp;</td><td>{before:.3f} →&nbsp;</td>"
                f"<td style='color:{colour}'>{after:.3f}</td></tr>"
            )
    verdict = "Keep it" if proposal.recommended else "Better not"
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<b>{proposal.model_id}</b> beside {proposal.parent}, Dice:{table}{verdict}: {proposal.reason}"


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
                picture.setFixedSize(QSize(PICTURE, PICTURE))
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
                    lesions = case.case.prediction(run_id).read_slice(z)[1]
                    truth = case.live["lesions"][z]
                    self.pictures[row][column].setPixmap(picture(case, z, lesions, truth))
                    scores[column][row] = dice(lesions > 0, truth > 0)
                    said = " → ".join(f"{scores[column][r]:.2f}" for r in sorted(scores[column]))
                    self.notes[column].setText(f"{z + 1}: {said}")

                self._session.refining.ask(name, z, value, nothing, nothing, draw)

    def _slices(self, case: OpenCase, version_id: str) -> list[int]:
        try:
            seen = WorkspaceModels(self._session.workspace).get(version_id).learned_from.get(case.id)
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
            PICTURE,
            PICTURE,
            Qt.AspectRatioMode.KeepAspectRatio,
            Qt.TransformationMode.SmoothTransformation,
        )
    )


def outline(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Return the pixels of a mask that touch what is not in it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return np.asarray(mask & ~inner)
