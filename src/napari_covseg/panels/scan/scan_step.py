"""Step 1, Scan: open one, see what it is, set the window and the mouse."""

from __future__ import annotations

from pathlib import Path

from napari import Viewer
from napari.layers import Image
from qtpy.QtWidgets import QCheckBox, QFileDialog, QLabel, QWidget

from napari_covseg.errors import CovsegError
from napari_covseg.panels.background import in_background
from napari_covseg.panels.layers import WINDOWS, is_aid
from napari_covseg.panels.mouse import HINT, set_window
from napari_covseg.panels.preferences import prefer
from napari_covseg.panels.scan.appearance import AppearancePart
from napari_covseg.panels.scan.case_menu import CaseMenu
from napari_covseg.panels.scan.facts import damage_text, facts
from napari_covseg.panels.step import (
    ElidedButton,
    ElidedComboBox,
    Paragraph,
    ProgressRow,
    Step,
    button,
    caption,
)
from napari_covseg.scans import READABLE_SUFFIXES, SeriesInfo, list_series

FILES = f"Scans ({' '.join(f'*{suffix}' for suffix in READABLE_SUFFIXES)});;All files (*)"


class ScanStep(Step):
    """Opens a scan and says what it is.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "1  Scan"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._build_sources()
        self.progress = ProgressRow(self.session, "scan", "No half case is kept.")
        self.column.addWidget(self.progress)
        self._build_facts()
        self._build_view()
        self._fill_recent()
        self._on_case_changed()
        self._on_busy(self.session.busy_with)
        self._connect()

    def _build_sources(self) -> None:
        self.open_file = button("Open file …", "One file: NIfTI, NRRD, MHA, DICOM, or a picture.")
        self.open_folder = button(
            "Open folder …", "A folder of DICOM files (any names, also nested) or of pictures."
        )
        self.series = ElidedComboBox("This folder holds several series or X-rays: choose the one to open.")
        self.open_series = button("Open", "Open the series that is chosen here.")
        self.recent = ElidedComboBox(
            "Cases you worked on before, the last one first. They open as you left them."
        )
        self.layer = ElidedComboBox("An image that is in the viewer already, from whatever reader it came.")
        self.use_layer = button(
            "Use as scan", "Take this image layer as the scan: it becomes a case of its own."
        )
        self.anew = button(
            "Begin another case of this scan",
            "Read it again into a case without labels; the other one stays.",
        )
        self.anew.hide()
        self.add_row(self.open_file, self.open_folder)
        self.add_row(self.series, self.open_series, stretch=0)
        self.column.addWidget(self.anew)
        self.manage = CaseMenu(self.session, self.workbench.opening)
        self.place = ElidedButton(
            "Folder in which cases are kept. Click to choose another; the shell has --workspace."
        )
        self.add_row(caption("Recent"), self.recent, self.manage, stretch=1)
        self.add_row(caption("Kept in"), self.place, stretch=1)
        self.add_row(caption("Layer"), self.layer, self.use_layer, stretch=1)
        self._show_series([])

    def _build_facts(self) -> None:
        self.facts = Paragraph()
        self.facts.setToolTip(
            "What the file says about the patient and the geometry. The name is never kept."
        )
        self.column.addWidget(self.facts)
        self.appearance = AppearancePart(self.session, self.workbench.learning)
        self.column.addWidget(self.appearance)

    def _build_view(self) -> None:
        self.windows = {
            name: button(name, f"Level {window.level}, width {window.width} HU: {window.good_for}.")
            for name, window in WINDOWS.items()
        }
        self.radiology_mouse = QCheckBox(
            "Radiology mouse", toolTip=HINT, checked=self.workbench.mouse.enabled
        )
        self.window = QLabel(toolTip="Level and width of the grey scale.")
        self.add_row(*self.windows.values())
        self.add_row(self.radiology_mouse, self.window, stretch=0)

    def _connect(self) -> None:
        self.open_file.clicked.connect(self._on_open_file)
        self.open_folder.clicked.connect(self._on_open_folder)
        self.open_series.clicked.connect(self._on_open_series)
        self.anew.clicked.connect(self.workbench.opening.anew)
        self.workbench.opening.found_again.connect(self.anew.setVisible)
        self.recent.activated.connect(self._on_recent)
        self.place.clicked.connect(self._on_place)
        self.use_layer.clicked.connect(self._on_use_layer)
        for name, press in self.windows.items():
            press.clicked.connect(lambda _=False, name=name: self._on_window(name))
        self.radiology_mouse.toggled.connect(self._on_mouse)
        self.appearance.values_said.connect(
            lambda path, series, values: self.workbench.opening.path(path, series or None, values)
        )
        self.session.case_changed.connect(self._on_case_changed)
        self.session.appearance_changed.connect(self._show_facts)
        self.session.busy_changed.connect(self._on_busy)
        self.session.layers_changed.connect(self._on_layers_changed)
        self.session.window_changed.connect(self._on_window_changed)

    def _fill_recent(self) -> None:
        self.recent.clear()
        try:
            cases = self.session.workspace.cases()
            self.place.show_text(self.session.workspace.path)
        except CovsegError as error:
            self.recent.addItem("none can be read")
            self.place.show_text("choose a folder …")
            self.recent.setToolTip(str(error))
            cases = []
        if not cases:
            self.recent.addItem("no cases yet")
        self.recent.setEnabled(bool(cases))
        open_id = self.session.case.id if self.session.case is not None else None
        if cases and open_id is None:
            self.recent.addItem("choose a case …", None)
        for info in cases:
            self.recent.addItem(f"{info.modified.astimezone():%d %b %H:%M}  {info.name}", info.id)
            if info.id == open_id:
                self.recent.setCurrentIndex(self.recent.count() - 1)

    def _show_series(self, found: list[SeriesInfo]) -> None:
        self.series.clear()
        for info in found:
            self.series.addItem(f"{info.description or 'no description'} · {info.holds}", info.uid)
        for widget in (self.series, self.open_series):
            widget.setVisible(len(found) > 1)

    def _on_open_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", filter=FILES)
        if path:
            self._show_series([])
            self.workbench.opening.path(path)

    def _on_open_folder(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Open a folder of DICOM files or pictures")
        if folder:
            self.choose_series(folder)

    def choose_series(self, folder: str | Path) -> None:
        """Open a folder, or, if it holds several CT series or X-rays, offer them first."""
        self._folder = str(folder)

        def offer(found: list[SeriesInfo]) -> None:
            series = [info for info in found if info.modality in ("CT", "") or info.is_xray]
            self._show_series(series)
            if len(series) < 2:
                self.workbench.opening.path(folder)

        in_background(lambda: list(list_series(folder)), offer)

    def _on_open_series(self) -> None:
        self.workbench.opening.path(self._folder, self.series.currentData())

    def _on_recent(self, index: int) -> None:
        case_id = self.recent.itemData(index)
        if case_id:
            self._show_series([])
            self.workbench.opening.case(case_id)

    def _on_place(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Keep cases in a workspace, or in an empty folder")
        if folder:
            self.workbench.opening.use_workspace(folder)

    def _on_use_layer(self) -> None:
        layer = self.layer.currentData()
        if layer is not None:
            self.workbench.opening.layer(layer)

    def _on_layers_changed(self) -> None:
        chosen = self.layer.currentText()
        self.layer.clear()
        for layer in self.session.viewer.layers:
            if isinstance(layer, Image) and layer is not self.session.scan_image() and not is_aid(layer):
                self.layer.addItem(layer.name, layer)
        if not self.layer.count():
            self.layer.addItem("no other image", None)
        self.layer.setCurrentIndex(max(self.layer.findText(chosen), 0))
        free = self.layer.currentData() is not None and not self.session.busy_with
        self.layer.setEnabled(free)
        self.use_layer.setEnabled(free)

    def _on_window(self, name: str) -> None:
        image = self.session.scan_image()
        if image is not None:
            set_window(image, WINDOWS[name].level, WINDOWS[name].width)

    def _on_window_changed(self) -> None:
        image = self.session.scan_image()
        if image is None:
            self.window.clear()
        else:
            low, high = image.contrast_limits
            self.window.setText(f"L {(low + high) / 2:.0f}  W {high - low:.0f}")

    def _on_mouse(self, checked: bool) -> None:
        self.workbench.mouse.enabled = checked
        prefer("radiology_mouse", checked)

    def _on_case_changed(self) -> None:
        case = self.session.case
        self._show_facts()
        in_hu = case is not None and case.case.intensity == "HU"
        for press in self.windows.values():
            press.setEnabled(in_hu)
        self._on_window_changed()
        self._fill_recent()
        self._on_layers_changed()

    def _show_facts(self) -> None:
        if (case := self.session.case) is None:
            self.facts.setText("No scan is open.")
            return
        header = {**case.case.header, "name": case.case.name}
        self.facts.setText(facts(header, case.case.shape, damage_text(case.damaged), case.appearance.kind))

    def _on_busy(self, what: str) -> None:
        for widget in (
            self.open_file,
            self.open_folder,
            self.open_series,
            self.anew,
            self.manage,
            self.place,
        ):
            widget.setEnabled(not what)
        self._on_layers_changed()
        self.recent.setEnabled(not what and self.recent.count() > 0)
        if not what and self.session.case is not None:  # the one that was chosen may not have opened
            self.recent.setCurrentIndex(self.recent.findData(self.session.case.id))
