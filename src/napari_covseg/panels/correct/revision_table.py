"""Revisions as rows of a table, the last one first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, Qt

from napari_covseg.cases import Revision

COLUMNS = ("No.", "When", "What", "Slices", "Who")


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
            return told(revision)
        if role != Qt.ItemDataRole.DisplayRole:
            return None
        return (
            str(revision.number),
            f"{revision.when.astimezone():%H:%M:%S}",
            revision.tool,
            slices_said(revision.slices),
            revision.who,
        )[index.column()]


def slices_said(slices: Sequence[int]) -> str:
    """Return slices as a person counts them, from 1: ``7`` or ``3-12``."""
    if not slices:
        return ""
    first, last = min(slices) + 1, max(slices) + 1
    return str(first) if first == last else f"{first}–{last}"


def told(revision: Revision) -> str:
    """Return all that is known of a revision in one line."""
    parts = [
        f"{revision.when.astimezone():%d %b %Y %H:%M:%S}",
        revision.tool,
        " and ".join(revision.groups),
        f"{revision.voxels} voxels" if revision.voxels else "",
        f"by {revision.who}",
        f"prediction {revision.run_id}" if revision.run_id else "",
        revision.note,
    ]
    return ", ".join(part for part in parts if part)
