"""Step 5, Export: labels as files in the geometry of the scan."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from napari import Viewer
from napari.utils.notifications import show_error, show_info
from qtpy.QtCore import QStandardPaths
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLineEdit, QWidget

from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.errors import ScanError
from napari_covseg.labels import GROUPS, Group
from napari_covseg.panels.background import errors_shown, in_background
from napari_covseg.panels.preferences import prefer, preferred
from napari_covseg.panels.step import ElidedComboBox, Paragraph, Step, button
from napari_covseg.scans import LABEL_SUFFIXES, VOLUMES, Scan, label_files, write_labels

ENDINGS = {f"{known.name} ({known.written[0]})": known.written[0] for known in VOLUMES if known.written}
MEANINGS: dict[Group, str] = {
    group: ", ".join(f"{label.value} {label.name}" for label in labels) for group, labels in GROUPS.items()
}


class ExportStep(Step):
    """Writes lungs, lesions or both.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "5  Export"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self.groups: dict[Group, QCheckBox] = {}
        for group in GROUPS:
            tooltip = f"Values in the file: {MEANINGS[group]}."
            self.groups[group] = QCheckBox(group.capitalize(), checked=True, toolTip=tooltip)
        self.format = ElidedComboBox(
            "NIfTI for most research tools, NRRD for 3D Slicer. Both lie on the scan voxel by voxel, "
            "with names and colours: in a table beside the NIfTI file, in the NRRD file as segments."
        )
        self.format.addItems(list(ENDINGS))
        self.path = QLineEdit(
            placeholderText="folder and name, without an ending",
            toolTip="Where to write. Lungs and lesions get files of their own, "
            "with _lungs and _lesions added.",
        )
        self.browse = button("…", "Choose a folder and a name.")
        self.browse.setFixedWidth(28)
        self.save = button(
            "Export", "Write the labels as they are now, in the geometry of the file that was read."
        )
        self.hint = Paragraph(small=True)
        self.add_row(*self.groups.values(), self.format, stretch=len(self.groups))
        self.add_row(self.path, self.browse, stretch=0)
        self.column.addWidget(self.save)
        self.column.addWidget(self.hint)
        self._on_case_changed()
        self._connect()

    def _connect(self) -> None:
        for check in self.groups.values():
            check.toggled.connect(self._on_choice)
        self.format.currentIndexChanged.connect(self._on_choice)
        self.path.textChanged.connect(self._on_choice)
        self.browse.clicked.connect(self._on_browse)
        self.save.clicked.connect(self._on_save)
        self.session.case_changed.connect(self._on_case_changed)
        self.session.labels_changed.connect(self._on_choice)
        self.session.busy_changed.connect(self._on_choice)

    def targets(self) -> dict[Group, Path]:
        """Return the file that each chosen group goes to.

        Raises
        ------
        ScanError
            If what is typed names no file.
        """
        ending = ENDINGS[self.format.currentText()]
        text = self.path.text().strip()
        for known in LABEL_SUFFIXES:
            text = text.removesuffix(known)
        chosen = [group for group, check in self.groups.items() if check.isChecked()]
        if not text or not chosen:
            return {}
        stem = named(text)
        return {group: stem.with_name(f"{stem.name}_{group}{ending}") for group in chosen}

    def _on_browse(self) -> None:
        path, _ = QFileDialog.getSaveFileName(self, "Export labels as", self.path.text())
        if path:
            self.path.setText(path)

    def _on_save(self) -> None:
        case = self.session.case
        with errors_shown():
            targets = self.targets()
            if case is None or not targets:
                show_error(
                    "There is nothing to export: open a scan and choose lungs or lesions, and where to."
                )
                return
            self._write(case, targets)

    def _write(self, case: OpenCase, targets: dict[Group, Path]) -> None:
        self.session.begin("Exporting", "export")

        def write() -> list[Path]:
            scan = Scan.from_header(case.case.header, case.voxels)
            for group, path in targets.items():
                write_labels(case.live[group], scan, path, GROUPS[group])
            return list(targets.values())

        def on_saved(paths: list[Path]) -> None:
            self.session.end()
            prefer("export_folder", str(paths[0].absolute().parent))
            show_info("Saved " + " and ".join(str(path) for path in paths))

        in_background(write, on_saved, lambda _: self.session.end())

    def _on_case_changed(self) -> None:
        case = self.session.case
        if case is not None:
            self.path.setText(str(export_folder() / (case.case.name or case.id).replace("/", "-")))
        self._on_choice()

    def _on_choice(self) -> None:
        case, lines = self.session.case, []
        try:
            targets = self.targets()
        except ScanError as error:
            targets = {}
            lines.append(str(error))
        self.save.setEnabled(case is not None and bool(targets) and not self.session.busy_with)
        files = [file for path in targets.values() for file in label_files(path)]
        replaced = [file for file in files if os.path.lexists(file)]
        self.save.setText(
            f"Export, replacing {len(replaced)} file{'s'[: len(replaced) != 1]}" if replaced else "Export"
        )
        if targets:
            lines.append("Files: " + ", ".join(file.name for file in files))
        if case is not None:
            states = np.asarray(case.review)
            known = (Review.UNTOUCHED, Review.PREDICTED, Review.SPREAD)
            bare, machine, spread = (int((states == state).sum()) for state in known)
            if bare:
                lines.append(f"{bare} of {len(states)} slices have no labels yet.")
            if machine:
                lines.append(f"{machine} slices are a model's suggestion that nobody has reviewed.")
            if spread:
                lines.append(f"{spread} slices were spread by a tool and nobody has looked at them.")
        self.hint.setText("\n".join(lines))


def export_folder() -> Path:
    """Return where one exported to the last time; the scan's own folder is never filled by itself."""
    last = Path(preferred("export_folder", ""))
    if last.is_absolute() and last.is_dir():
        return last
    documents = Path(QStandardPaths.writableLocation(QStandardPaths.StandardLocation.DocumentsLocation))
    return documents if documents.is_dir() else Path.home()


def named(text: str) -> Path:
    """Return the folder and the name that a person has typed.

    Raises
    ------
    ScanError
        If it names no file.
    """
    try:
        stem = Path(text).expanduser()
    except RuntimeError as error:  # of somebody whom this computer does not know
        raise ScanError(f"{text} has no home folder here: write the folder out in full.") from error
    if text.endswith(("/", os.sep)) or stem.name in ("", ".."):
        raise ScanError(f"{text} is a folder: add a name for the files to it.")
    if "\0" in text:
        raise ScanError("The name has a character that no file can have: choose another one.")
    return stem
