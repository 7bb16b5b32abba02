"""Step 4, Learn: the model learns from corrected slices; a person decides about the new version."""

from __future__ import annotations

from napari import Viewer
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QSizePolicy, QSpinBox, QWidget

from napari_covseg.cases.version import ModelState
from napari_covseg.jobs.events import ModelProposed, TrainingStep
from napari_covseg.panels.learn.curves import Curves
from napari_covseg.panels.learn.learning import EVERY, reviewed_slices
from napari_covseg.panels.learn.proposal import Proposal
from napari_covseg.panels.step import Paragraph, Step, button, caption, narrow


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
