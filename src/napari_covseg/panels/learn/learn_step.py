"""Step 4, Learn: the model learns from corrected slices; a person decides about the new one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from napari import Viewer
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QImage, QPixmap
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QLabel,
    QSizePolicy,
    QSpinBox,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace_models import ModelState, WorkspaceModels
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import ModelProposed, TrainingStep
from napari_covseg.labels import GROUPS, LESIONS, LUNGS
from napari_covseg.metrics import dice
from napari_covseg.panels.correct.refining import Refining
from napari_covseg.panels.layers import WINDOWS, grey_limits
from napari_covseg.panels.learn.learning import EVERY, Learning, reviewed_slices
from napari_covseg.panels.session import Session
from napari_covseg.panels.signs import GOOD, GROUND, WARNING, swatch
from napari_covseg.panels.step import ElidedComboBox, Paragraph, Step, button, caption, fill, narrow, row

PLOT_HEIGHT = 110
COLOURS = {"loss": (220, 220, 220), "lungs": LUNGS[0].colour}
COLOURS |= {label.name: label.colour for label in LESIONS}

SLICES = 3
PICTURE = 80  # pixels on the screen
TINY = "font-size: 10px;"
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
        self.learning = self.workbench.learning
        self._build()
        self._lay_out()
        self._on_changed()
        self._connect()

    def _build(self) -> None:
        self.version = ElidedComboBox(
            "Versions of the chosen model that learned here. None is ever changed. "
            "Proposed is one that nobody has decided about yet."
        )
        self.use = button("Make current", "Label with this version from now on; a proposed one is kept.")
        self.cases = ElidedComboBox("Where the corrected and accepted slices come from.")
        self.cases.addItem("this case", False)
        self.cases.addItem("all corrected cases", True)
        self.minutes = QDoubleSpinBox(
            decimals=1,
            minimum=0.1,
            maximum=60,
            singleStep=0.5,
            value=0.5,
            suffix=" min",
            toolTip="Time for learning; measuring and writing come on top. Learning ends by itself "
            "after 45 steps, or four for each corrected slice, if these take less time.",
        )
        narrow(self.minutes, 54)
        self.start = button("Learn", "Let a copy of the model learn. The model itself never changes.")
        self.cancel = button("Stop", "Stop learning; the best so far is proposed.")
        self.status = Paragraph()
        self.status.setToolTip("What there is to learn from, and how far it is.")
        self.curves = Curves()
        self.curves.hide()
        self.proposal = Proposal(self.session, self.learning, self.workbench.refining)
        self.by_itself = QCheckBox(
            "Learn as I go, every",
            toolTip="After so many accepted slices the model learns for half a minute in the background. "
            "The new version is used if it measures better, and thrown away if not.",
        )
        self.every = QSpinBox(
            minimum=1,
            maximum=100,
            value=EVERY,
            suffix=" slices",
            toolTip="Accepted slices from one time to the next.",
        )
        narrow(self.every, 54)

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

    def _on_stepped(self, step: TrainingStep) -> None:
        self.curves.show()
        self.curves.add(step)
        self.status.setText(f"Learning: step {step.step} of {step.steps}, {step.seconds:.0f} s")

    def _on_proposed(self, proposal: ModelProposed) -> None:
        self.status.setText("Measured. Compare, then keep the new version or discard it.")

    def _on_by_itself(self) -> None:
        self.learning.every = self.every.value() if self.by_itself.isChecked() else 0

    def _on_changed(self) -> None:
        learning = self.learning
        current = learning.in_use
        with signals_blocked(self.version):
            self.version.clear()
            if learning.model is not None:
                self.version.addItem(f"{learning.base} (as shipped)", learning.base)
            for version in learning.versions():
                made = f"{version.id}, {version.created.astimezone():%d %b %H:%M}"
                undecided = ", proposed" if version.state == ModelState.PROPOSED else ""
                self.version.addItem(made + undecided, version.id)
            self.version.setCurrentIndex(max(self.version.findData(current), 0))
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
        for name in ("loss", "Dice, held out"):
            plot = _plot(name)
            if plot is not None:
                self._plots[name] = plot
        fill(self, row(*self._plots.values(), spacing=2), self.text)

    def clear(self) -> None:
        """Begin again, without curves."""
        self.loss.clear()
        self.steps.clear()
        self.dice.clear()
        self.best = 0
        self._lines.clear()
        for plot in self._plots.values():
            plot.clear()

    def add(self, step: TrainingStep) -> None:
        """Let the curves grow by a step."""
        if step.loss is not None:
            self.steps.append(step.step)
            self.loss.append(step.loss)
            self._draw("loss", "loss", self.steps, self.loss)
        if step.best:
            self.best = step.step
        for output, value in (step.held_out or {}).items():
            if math.isfinite(value):
                points = self.dice.setdefault(output, [])
                points.append((step.step, value))
                steps, values = zip(*points, strict=True)
                self._draw("Dice, held out", output, list(steps), list(values))
        if not self._plots:
            self.text.setText(f"Step {step.step} of {step.steps}")

    def _draw(self, plot: str, name: str, x: list[int], y: list[float]) -> None:
        if plot not in self._plots:
            return
        if name not in self._lines:
            colour = COLOURS[name]
            marks = {"symbol": "o", "symbolSize": 4, "symbolBrush": colour} if plot != "loss" else {}
            self._lines[name] = self._plots[plot].plot(pen={"color": colour, "width": 1.5}, **marks)
            # a legend in so small a plot would lie on its curves
            signs = [f"{swatch('━', COLOURS[line])}&nbsp;{line}" for line in self._lines if line != "loss"]
            self.text.setText("  ".join(signs))
        self._lines[name].setData(x, y)


def _plot(title: str) -> Any:
    try:
        import pyqtgraph
    except ImportError:  # it comes with the extra `desktop`; without it there are numbers
        return None
    plot = pyqtgraph.PlotWidget(background=GROUND)
    plot.setFixedHeight(PLOT_HEIGHT)
    plot.setMinimumWidth(0)
    plot.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
    plot.setTitle(title, size="8pt")
    plot.setMouseEnabled(x=False, y=False)
    plot.hideButtons()
    plot.setMenuEnabled(False)
    plot.getAxis("left").setWidth(30)
    plot.setToolTip("Goes down while the model learns." if title == "loss" else "Decides which step is kept.")
    return plot


class Proposal(QWidget):
    """Shows itself while a version waits for a decision.

    Parameters
    ----------
    session : Session
    learning : Learning
    refining : Refining
    """

    def __init__(self, session: Session, learning: Learning, refining: Refining) -> None:
        super().__init__()
        self._learning = learning
        self.scores = Paragraph()
        self.scores.setToolTip("Dice before and after, on slices that the model did not learn from.")
        self.slices = SideBySide(session, learning, refining)
        self.keep = button(
            "Keep",
            "Use the new version from now on, and label the scan again with it. "
            "Voxels that you painted or erased, and accepted slices, stay as they are.",
        )
        self.discard = button("Discard", "Go on with the model as it was.")
        fill(self, self.scores, self.slices, row(self.keep, self.discard))
        self.keep.clicked.connect(self._learning.keep)
        self.discard.clicked.connect(self._learning.discard)
        self._learning.proposed.connect(self._on_proposed)
        self.hide()

    def reflect(self) -> None:
        """Hide when nothing waits for a decision."""
        if self._learning.proposal is None:
            self.hide()

    def _on_proposed(self, proposal: ModelProposed) -> None:
        self.scores.setText(scores_text(proposal))
        self.show()
        self.slices.compare(proposal)


def scores_text(proposal: ModelProposed) -> str:
    """Return the scores before and after, and what they speak for, as rich text."""
    rows = []
    for part, scores in proposal.scores.items():
        for output, before in scores["before"].items():
            after = scores["after"].get(output, float("nan"))
            gain = round(after, 3) - round(before, 3)  # of what is shown
            sign, colour = ("▲", GOOD) if gain > 0 else ("▼", WARNING) if gain < 0 else ("", GOOD)
            rows.append(
                f"<tr><td>{part}, {output}&nbsp;</td><td>{before:.3f} →&nbsp;</td>"
                f"<td>{after:.3f} <span style='color:{colour}'>{sign}</span></td></tr>"
            )
    verdict = "Keep it" if proposal.recommended else "Better not"
    table = f"<table>{''.join(rows)}</table>" if rows else ""
    return f"<b>{proposal.model_id}</b> beside {proposal.parent}, Dice:{table}{verdict}: {proposal.reason}"


class SideBySide(QWidget):
    """A column for each slice; corrected, parent and new version below each other.

    Parameters
    ----------
    session : Session
    learning : Learning
    refining : Refining
    """

    def __init__(self, session: Session, learning: Learning, refining: Refining) -> None:
        super().__init__()
        self._session = session
        self._learning = learning
        self._refining = refining
        self.pictures: list[list[QLabel]] = []
        grid = QGridLayout(self, spacing=2)
        grid.setContentsMargins(0, 0, 0, 0)
        for line, name in enumerate(("before", "after")):
            grid.addWidget(QLabel(name, styleSheet=TINY), line, 0)
            tooltip = f"The model's findings {name} learning; yours are drawn in white."
            self.pictures.append([QLabel(toolTip=tooltip) for _ in range(SLICES)])
            for column, picture in enumerate(self.pictures[line]):
                picture.setFixedSize(QSize(PICTURE, PICTURE))
                grid.addWidget(picture, line, column + 1)
        self.notes = [QLabel(styleSheet=TINY, alignment=Qt.AlignmentFlag.AlignCenter) for _ in range(SLICES)]
        for column, note in enumerate(self.notes):
            grid.addWidget(note, 2, column + 1)

    def compare(self, proposal: ModelProposed) -> None:
        """Have both models label three slices, those that decided first, and draw them."""
        case, model = self._session.case, self._learning.model
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
            for side, name in enumerate((self._learning.in_use, proposal.model_id)):

                def draw(prediction_id: str, side: int = side, column: int = column, z: int = z) -> None:
                    lesions = case.case.prediction(prediction_id).read_slice(z)[1]
                    truth = case.live["lesions"][z]
                    self.pictures[side][column].setPixmap(picture(case, z, lesions, truth))
                    scores[column][side] = dice(lesions > 0, truth > 0)
                    dice_text = " → ".join(f"{scores[column][s]:.2f}" for s in sorted(scores[column]))
                    self.notes[column].setText(f"{z + 1}: {dice_text}")

                self._refining.label_slice(name, z, value, nothing, nothing, draw)

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
