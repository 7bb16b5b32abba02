"""Between opening and labelling: what networks say that the scan shows, and how far to trust it."""

from __future__ import annotations

from html import escape

import numpy as np
from napari import Viewer
from napari.utils.notifications import show_error, show_info
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QFileDialog, QWidget
from superqt.utils import signals_blocked

from napari_covseg.labels import CLASSES, Modality, Task
from napari_covseg.models.catalogue import find
from napari_covseg.models.installed import install
from napari_covseg.panels.background import errors_shown
from napari_covseg.panels.segment.model_list import ModelList
from napari_covseg.panels.segment.models import ModelChoice, model_choices, model_details
from napari_covseg.panels.signs import warning
from napari_covseg.panels.step import (
    RESEARCH_USE,
    ElidedComboBox,
    Paragraph,
    ProgressRow,
    Step,
    button,
    caption,
    show_in_place,
)
from napari_covseg.panels.triage.class_bars import ClassBars
from napari_covseg.panels.triage.finding_strip import FindingStrip, differing
from napari_covseg.panels.triage.heat_map import HeatMap
from napari_covseg.panels.triage.recognising import CaseAnswer
from napari_covseg.recognise.answers import modality_of, suited, verdict

NAMES: dict[Task, str] = {"recognition": "Classes", "manifestations": "Findings"}
NONE = "There is no model for this: install a model file, which the list offers."


class TriageStep(Step):
    """Chooses models, has them asked, and shows what they say and how far that can be trusted.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "    Triage"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.recognising = self.workbench.recognising
        self.heat_map = HeatMap(self.session)
        self._warm: set[str] = set()
        self._build()
        self._reflect_models()
        self._reflect()
        self._connect()

    def _build(self) -> None:
        self.lists: dict[Task, ModelList] = {
            "recognition": ModelList("The model that tells what the scan is recognised as."),
            "manifestations": ModelList("The model that names what each slice of a CT has."),
        }
        self.captions: dict[Task, QWidget] = {task: caption(name) for task, name in NAMES.items()}
        for task, models in self.lists.items():
            self.add_row(self.captions[task], models, stretch=1)
        self.run = button(
            "Recognise",
            "Have networks say what the scan shows, beginning with the slice on screen. No label changes.",
        )
        self.add_row(self.run, stretch=0)
        self.progress = ProgressRow(self.session, "triage", "Slices that were answered stay.")
        self.said = Paragraph()
        self.said.setToolTip("How far what the networks say can be trusted, and why nothing is said.")
        self.bars = ClassBars()
        self.strip = FindingStrip()
        self.table = Paragraph()
        self.table.setToolTip(
            "Each manifestation on the slice on screen, and whether the label map of the latest prediction "
            "has at least 10 pixels of it there."
        )
        self.differences = Paragraph()
        self.differences.setToolTip("Where the label map of the latest prediction says otherwise.")
        self.heat = QCheckBox(
            "Heat map", toolTip="Where in a slice a network sees it, as a layer over the scan: no outline."
        )
        self.output = ElidedComboBox("What the heat map is of.")
        self.use = Paragraph(f"{RESEARCH_USE}.", small=True)
        for part in (self.progress, self.said, self.bars, self.strip, self.table, self.differences):
            self.column.addWidget(part)
        self.add_row(self.heat, self.output, stretch=1)
        self.column.addWidget(self.use)

    def _connect(self) -> None:
        session, recognising = self.session, self.recognising
        for task, models in self.lists.items():
            models.chosen.connect(lambda _: self._reflect())
            models.opening.connect(self._reflect_models)
            models.install_requested.connect(lambda task=task: self._on_install(task))
        self.run.clicked.connect(self._on_run)
        self.heat.toggled.connect(self._on_heat)
        self.output.currentIndexChanged.connect(self._on_heat)
        self.strip.chosen.connect(session.go_to)
        recognising.changed.connect(self._reflect)
        recognising.finished.connect(self._on_finished)
        session.case_changed.connect(self._on_case_changed)
        session.appearance_changed.connect(self._on_case_changed)
        session.busy_changed.connect(lambda _: self._reflect())
        session.slice_changed.connect(self._on_slice)

    # --- the models -------------------------------------------------------------------

    @property
    def modality(self) -> Modality | None:
        """What the open scan is of a chest, None if it is none."""
        case = self.session.case
        return None if case is None else modality_of(case.appearance)

    @property
    def answers(self) -> dict[Task, CaseAnswer]:
        """What models have said of the open case, as what it is taken for now."""
        modality = self.modality
        return {task: one for task, one in self.recognising.answers.items() if one.modality == modality}

    def asked(self) -> list[ModelChoice]:
        """Return the models that would be asked about the open scan now."""
        case = self.session.case
        if case is None:
            return []
        chosen = [models.choice for models in self.lists.values()]
        return [one for one in chosen if one is not None and verdict(one.card, case.appearance).asked]

    def install_model(self, path: str, task: Task) -> None:
        """Copy a model file to where it is always at hand, and choose it."""
        with errors_shown():
            card, _ = install(find(path, task).card.id, path)
            self._reflect_models()
            if card.id in [choice.name for choice in self.lists[task].choices]:
                self.lists[task].choose(card.id)
                show_info(f"Installed {card.id}: {card.title}.")

    def _on_install(self, task: Task) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Install a model", filter="Models (*.safetensors)")
        if path:
            self.install_model(path, task)

    def _reflect_models(self) -> None:
        """List the models that there are now; of each task one that has learned from such scans is chosen."""
        modality = self.modality
        for task, models in self.lists.items():
            choices, now = model_choices(None, task), models.choice
            if modality is None or now is None or modality not in now.card.modalities:
                fitting = suited([choice.entry for choice in choices], modality)
                now_name = fitting.card.id if fitting is not None else now.name if now is not None else ""
            else:
                now_name = now.name
            models.fill(choices, now_name)
            chosen = models.choice
            models.setToolTip(f"{chosen.title}<br>{model_details(chosen.card)}" if chosen else NONE)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Have the models loaded once somebody looks at the step."""
        super().showEvent(event)
        self._warm_up()

    def _warm_up(self) -> None:
        names = {choice.name for choice in self.asked()} - self._warm
        if self.isVisible() and names:
            self._warm |= names
            self.recognising.warm_up(sorted(names), self.workbench.learning.device)

    # --- what they say -----------------------------------------------------------------

    def _on_run(self) -> None:
        models = [(choice.name, choice.card) for choice in self.asked()]
        if not models:
            show_error(NONE)
            return
        self.recognising.start(models, self.workbench.learning.device)

    def _on_case_changed(self) -> None:
        self.heat.setChecked(False)
        self._reflect_models()
        self._reflect()
        self._warm_up()

    def _on_finished(self, answer: CaseAnswer) -> None:
        """Draw the heat map by itself only where the scan is found to be COVID-19, and that is a finding."""
        self._reflect_outputs()
        if answer.task != "recognition" or CLASSES[0] not in answer.outputs or not answer.scan.slices:
            return
        likely = answer.scan.probabilities[answer.outputs.index(CLASSES[0])]
        wanted = answer.shown and likely >= answer.thresholds[CLASSES[0]]
        if wanted:
            self.output.setCurrentText(CLASSES[0])
        self.heat.setChecked(wanted)

    def _reflect(self) -> None:
        case, busy, modality = self.session.case, bool(self.session.busy_with), self.modality
        answers = self.answers
        self.run.setEnabled(bool(self.asked()) and not busy and case is not None and not case.read_only)
        for_ct = modality != "X-ray"
        for part in (self.captions["manifestations"], self.lists["manifestations"]):
            part.setVisible(for_ct)
        self.said.setText(self._sentences())
        classes = answers.get("recognition")
        values = classes.scan.probabilities if classes is not None else ()
        names = classes.outputs if classes is not None and values else ()
        self.bars.show_classes(names, values, finding=classes is not None and classes.shown)
        findings = answers.get("manifestations")
        asked = findings if findings is not None and findings.kept is not None else None
        self.strip.show_answer(asked, self.recognising.segmented)
        show_in_place(self.strip, asked is not None)
        self._reflect_outputs()
        self._on_slice()

    def _sentences(self) -> str:
        """Return what has to be known of each answer, or of each model before it is asked, as rich text."""
        case = self.session.case
        if case is None:
            return "Open a scan first."
        lines = []
        for task, models in self.lists.items():
            if task == "manifestations" and self.modality != "CT":
                continue
            answer, choice = self.answers.get(task), models.choice
            if answer is not None:
                lines.append(f"{NAMES[task]}: {_with_caution(answer)}")
            elif choice is None:
                lines.append(f"{NAMES[task]}: {NONE}")
            else:
                said = verdict(choice.card, case.appearance)
                lines.append(
                    warning(said.caution)
                    if not said.asked
                    else f"{escape(choice.card.id)} was not asked yet."
                )
        return "<br>".join(lines)

    def _reflect_outputs(self) -> None:
        """List what heat maps there are of."""
        there = [
            (name, answer.task)
            for answer in self.answers.values()
            if answer.kept is not None and answer.kept.info.heat_maps is not None
            for name in answer.outputs
        ]
        listed = [(self.output.itemText(n), self.output.itemData(n)) for n in range(self.output.count())]
        if there != listed:
            now = self.output.currentText()
            with signals_blocked(self.output):
                self.output.clear()
                for name, task in there:
                    self.output.addItem(name, task)
                self.output.setCurrentIndex(max(self.output.findText(now), 0))
        for part in (self.heat, self.output):
            part.setEnabled(bool(there))
        if not there:
            self.heat.setChecked(False)

    def _on_heat(self) -> None:
        task = self.output.currentData()
        answer = self.answers.get(task) if task else None
        if not self.heat.isChecked() or answer is None or answer.kept is None:
            self.heat_map.remove()
            return
        self.heat_map.show(answer.kept, self.output.currentText())

    def _on_slice(self) -> None:
        z = self.session.slice_on_screen
        self.strip.show_current(z)
        self.heat_map.take()  # it may have come meanwhile
        answer = self.answers.get("manifestations")
        if answer is not None and answer.kept is None:
            answer = None  # it was not asked
        self.table.setText("" if answer is None else self._table(answer, z))
        self.differences.setText("" if answer is None else self._differences(answer))

    def _table(self, answer: CaseAnswer, z: int) -> str:
        """Return what is said of a slice as rich text: by the network, and by a label map if there is one."""
        segmented = self.recognising.segmented
        known = bool(np.isfinite(answer.probabilities[z]).all())
        rows = [("", f"Slice {z + 1}", "Labels" if segmented is not None else "")]
        for number, name in enumerate(answer.outputs):
            found = bool(answer.found(name)[z])
            here = f"{_sign(found)} {100 * answer.probabilities[z, number]:.0f} %" if known else "–"
            rows.append((escape(name), here, self._of_labels(name, z, found if known else None)))
        cell = "<td style='white-space: nowrap'>{}&nbsp;&nbsp;</td>"
        lines = ["".join(map(cell.format, cells)) for cells in rows]
        return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"

    def _of_labels(self, name: str, z: int, found: bool | None) -> str:
        segmented = self.recognising.segmented
        if segmented is None:
            return ""
        if name not in segmented.slices:
            return "not told apart"
        has = bool(segmented.slices[name][z])
        said = f"{_sign(has)} {'yes' if has else 'no'}"
        return said if found in (None, has) else warning(f"{said}, differs")

    def _differences(self, answer: CaseAnswer) -> str:
        """Return in how many slices a label map says otherwise, in one sentence."""
        segmented = self.recognising.segmented
        if segmented is None:
            return ""
        there = {name: has for name, has in segmented.slices.items() if name in answer.outputs}
        counts = {name: int(differing(answer, name, has).sum()) for name, has in there.items()}
        if not counts:
            return f"The labels of {segmented.model_id} do not tell findings apart."
        said = ", ".join(f"{count} for {name}" for name, count in counts.items() if count)
        rest = f"differ on slices: {said}." if said else "say the same of every slice."
        return f"The labels of {segmented.model_id} {rest}"


def _sign(found: bool) -> str:
    return "●" if found else "○"


def _with_caution(answer: CaseAnswer) -> str:
    if answer.kept is not None and not answer.shown:
        return f"{warning('No finding.')} {escape(answer.caution)}"
    return warning(answer.caution)
