"""What was done to the open case: every revision, the state after any of them, and how to restore it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from napari import Viewer
from napari.layers import Labels
from napari.utils.notifications import show_info
from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt
from qtpy.QtWidgets import QAbstractItemView, QFileDialog, QHeaderView, QLineEdit, QTableView, QWidget
from superqt.utils import QSignalDebouncer

from napari_covseg.cases.edit_log import State
from napari_covseg.cases.history import write_csv
from napari_covseg.cases.revision import Revision
from napari_covseg.panels.background import errors_shown, in_background
from napari_covseg.panels.layers import add_aid, labels_layer, remove_layers
from napari_covseg.panels.preferences import prefer, preferred
from napari_covseg.panels.step import Step, caption, small

LIST_AFTER = 300  # ms; changes that come faster are listed together
HEIGHT = 150
STROKES = "Strokes (*.covseg-strokes *.brought-back);;All files (*)"

COLUMNS = ("No.", "When", "What", "Slices", "Who")


class HistoryStep(Step):
    """Lists revisions, the last one first, shows and restores the state after one.

    Parameters
    ----------
    napari_viewer : Viewer
    parent : QWidget, optional
    """

    title = "    History"

    def __init__(self, napari_viewer: Viewer, parent: QWidget | None = None) -> None:
        super().__init__(napari_viewer, parent)
        self._preview: list[Labels] = []
        self.rows = RevisionTable()
        self.table = QTableView(
            toolTip="Every change: number, when, with what, where, and who made it.",
            selectionBehavior=QAbstractItemView.SelectionBehavior.SelectRows,
            selectionMode=QAbstractItemView.SelectionMode.SingleSelection,
            wordWrap=False,
        )
        self.table.setModel(self.rows)
        self.table.setFixedHeight(HEIGHT)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(20)
        header = self.table.horizontalHeader()
        for column, width in enumerate((34, 62, 86, 60)):
            self.table.setColumnWidth(column, width)
        header.setSectionResizeMode(self.rows.columnCount() - 1, QHeaderView.ResizeMode.Stretch)
        self.who = QLineEdit(
            preferred("who", ""),
            placeholderText="user",
            maxLength=80,
            toolTip="Your name, or what stands for it, in changes from now on. Those before keep theirs.",
        )
        self.show_state = small("Show", "", "Show the labels as they were after this change.", checkable=True)
        self.restore = small(
            "Restore",
            "",
            "Make labels and states what they were after this change. It is a change of its own.",
        )
        self.export = small("Export CSV …", "", "Write the whole list as a table, for an audit.")
        self.save_elsewhere = small(
            "Save elsewhere …",
            "",
            "Save this session's strokes into a file, for when the workspace cannot be written.",
        )
        self.bring_back = small("Bring back …", "", "Take the strokes of such a file into the case.")
        self._debouncer = QSignalDebouncer(parent=self)
        self._debouncer.setTimeout(LIST_AFTER)
        self.add_row(caption("Changes are by"), self.who, stretch=1)
        self.column.addWidget(self.table)
        self.add_row(self.show_state, self.restore, self.export)
        self.add_row(self.save_elsewhere, self.bring_back)
        self._list()
        self._connect()

    def _connect(self) -> None:
        self._debouncer.triggered.connect(self._list)
        self.who.textChanged.connect(self._on_who)
        self.table.selectionModel().selectionChanged.connect(lambda: self._on_chosen())
        self.show_state.clicked.connect(self._on_show)
        self.restore.clicked.connect(self._on_restore)
        self.export.clicked.connect(self._on_export)
        self.save_elsewhere.clicked.connect(self._on_save_elsewhere)
        self.bring_back.clicked.connect(self._on_bring_back)
        self.session.case_changed.connect(self._on_case_changed)
        self.session.slices_changed.connect(lambda slices: self._debouncer.throttle())

    @property
    def chosen(self) -> int | None:
        """Number of the revision that is chosen."""
        rows = self.table.selectionModel().selectedRows()
        return self.rows.revision(rows[0].row()).number if rows else None

    def choose(self, number: int) -> None:
        """Choose a revision by its number."""
        row = self.rows.row_of(number)
        if row is not None:
            self.table.selectRow(row)

    def _list(self) -> None:
        case, chosen = self.session.case, self.chosen
        self.rows.show(case.history() if case is not None else [])
        if chosen is not None:
            self.choose(chosen)
        self._reflect()

    def _reflect(self) -> None:
        there = self.session.case is not None
        self.show_state.setEnabled(there and (self.chosen is not None or bool(self._preview)))
        self.show_state.setChecked(bool(self._preview))
        self.restore.setEnabled(self.session.can_edit and self.chosen is not None)
        self.export.setEnabled(there)
        for press in (self.save_elsewhere, self.bring_back):
            press.setEnabled(self.session.can_edit)

    def _on_who(self, who: str) -> None:
        prefer("who", who.strip())
        if self.session.case is not None:
            self.session.case.who = who.strip()

    def _on_case_changed(self) -> None:
        self._hide()
        self._list()

    def _on_chosen(self) -> None:
        if self._preview and self.chosen is not None:
            self._show(self.chosen)
        self._reflect()

    def _on_show(self) -> None:
        if self._preview or self.chosen is None:
            self._hide()
        else:
            self._show(self.chosen)
        self._reflect()

    def _show(self, number: int) -> None:
        case = self.session.case
        assert case is not None

        def draw(state: State) -> None:
            if self.session.case is case:
                self._hide()
                self._draw(state, number)
                self._reflect()

        in_background(lambda: case.state_at(number), draw, lambda _: self._reflect())

    def _draw(self, state: State, number: int) -> None:
        layers, viewer = self.session.layers, self.session.viewer
        case = self.session.case
        assert layers is not None and case is not None
        for group, values in state.labels.items():
            layer = labels_layer(group, values, case.case.spacing, layers.scan)
            layer.name, layer.editable = f"{layer.name} after change {number}", False
            add_aid(viewer, layer)
            self._preview.append(layer)
            if group in layers.labels:
                layers.labels[group].visible = False
        if state.missing:
            show_info(f"{len(state.missing)} later changes cannot be read: this state is not sure.")

    def _hide(self) -> None:
        preview, self._preview = self._preview, []
        remove_layers(self.session.viewer, *preview)
        if preview and self.session.layers is not None:
            for layer in self.session.layers.labels.values():
                layer.visible = True

    def _on_restore(self) -> None:
        case, number = self.session.case, self.chosen
        if case is None or number is None or self.session.layers is None:
            return
        self._hide()
        with errors_shown():
            changes = case.restore(number)
            self.session.layers.add_restored(changes, [case.revision])
            self.session.mark_changed(range(len(case.review)))

    def _on_save_elsewhere(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Save this session's strokes in a folder")
        if folder:
            self.workbench.opening.save_elsewhere(folder)

    def _on_bring_back(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Bring back strokes", filter=STROKES)
        if path:
            self._hide()
            self.workbench.opening.rescue(path)

    def _on_export(self) -> None:
        case = self.session.case
        path, _ = QFileDialog.getSaveFileName(self, "Export the history", "history.csv", "Tables (*.csv)")
        if path and case is not None:
            self.export_to(path)

    def export_to(self, path: str | Path) -> None:
        """Write the list as a table: what is listed from now on is what was written."""
        self._list()
        revisions = self.rows.revisions
        if self.session.case is not None:
            in_background(lambda: write_csv(revisions, path), lambda _: show_info(f"Saved {path}"))


class RevisionTable(QAbstractTableModel):
    """Makes a cell only when it is drawn, so that thousands of revisions cost nothing."""

    def __init__(self) -> None:
        super().__init__()
        self._revisions: list[Revision] = []

    def show(self, revisions: Sequence[Revision]) -> None:
        """List these revisions, given oldest first."""
        self.beginResetModel()
        self._revisions = list(revisions)[::-1]
        self.endResetModel()

    @property
    def revisions(self) -> list[Revision]:
        """All that are listed, oldest first."""
        return self._revisions[::-1]

    def revision(self, row: int) -> Revision:
        """Return the revision of a row."""
        return self._revisions[row]

    def row_of(self, number: int) -> int | None:
        """Return the row of a revision, None if it is not listed."""
        rows = (row for row, revision in enumerate(self._revisions) if revision.number == number)
        return next(rows, None)

    def rowCount(self, parent: QModelIndex | None = None) -> int:
        """Return how many revisions there are."""
        return len(self._revisions)

    def columnCount(self, parent: QModelIndex | None = None) -> int:
        """Return how much is said of each."""
        return len(COLUMNS)

    def headerData(self, section: int, orientation: Any, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the name of a column."""
        columns = orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole
        return COLUMNS[section] if columns else None

    def data(self, index: QModelIndex, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what stands in a cell, and in its tooltip."""
        revision = self._revisions[index.row()]
        if role == Qt.ItemDataRole.ToolTipRole:
            return revision_text(revision)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            str(revision.number),
            f"{revision.when.astimezone():%H:%M:%S}",
            revision.tool,
            slices_text(revision.slices),
            revision.who,
        )[index.column()]


def slices_text(slices: Sequence[int]) -> str:
    """Return slices as a person counts them, from 1: ``7`` or ``3-12``."""
    if not slices:
        return ""
    first, last = min(slices) + 1, max(slices) + 1
    return str(first) if first == last else f"{first}–{last}"


def revision_text(revision: Revision) -> str:
    """Return all that is known of a revision in one line."""
    parts = [
        f"{revision.when.astimezone():%d %b %Y %H:%M:%S}",
        revision.tool,
        " and ".join(revision.groups),
        f"{revision.voxels} voxels" if revision.voxels else "",
        f"by {revision.who}",
        f"prediction {revision.prediction_id}" if revision.prediction_id else "",
        revision.note,
    ]
    return ", ".join(part for part in parts if part)
