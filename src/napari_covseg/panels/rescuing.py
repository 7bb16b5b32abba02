"""Strokes that the workspace does not take go elsewhere, and come back, as the person sees it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QElapsedTimer, QObject, Signal

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import Saved, bring_back, bring_back_waiting, close_or_save, save
from napari_covseg.errors import CaseError
from napari_covseg.panels.scan.facts import damage_text

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session

_log = logging.getLogger(__name__)
QUIET = 60_000  # ms between two notes that saving fails; each stroke tries again
WAY_OUT = 'Until then "Save elsewhere …" in the History step keeps the strokes of this session in a file.'


class Rescuing(QObject):
    """Opens and closes the cases of a session so that no stroke is lost.

    Parameters
    ----------
    session : Session

    Signals
    -------
    brought_back, damaged : str
        What the thread that opens a case has to tell.
    """

    brought_back = Signal(str)
    damaged = Signal(str)
    _unsaved = Signal(str, str)

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self._session = session
        self._closed: set[str] = set()
        self._since_told = QElapsedTimer()
        self.brought_back.connect(show_info)
        self.damaged.connect(show_warning)
        self._unsaved.connect(self._on_unsaved)

    def open(self, case_id: str) -> OpenCase:
        """Open a case, in whatever thread, and bring back what was saved elsewhere.

        Somebody else may have it, or its folder may not be written: it is then read-only.

        Raises
        ------
        CaseError
            If it cannot be read.
        """
        session = self._session
        workspace, failed = session.workspace, session.saving_failed
        self._closed.discard(case_id)
        try:
            case = OpenCase(
                workspace, case_id, on_error=lambda error: self._unsaved.emit(case_id, str(error))
            )
        except CaseError as error:
            case = OpenCase(workspace, case_id, read_only=True)
            failed.emit(f"{error} It is open here to look at, not to change.")
        else:
            self._bring_back(case)
        _ = case.found  # of a case that nobody has looked at; here, as it takes a moment
        if case.damaged:
            self.damaged.emit(f'Case "{case.case.name}" was damaged. {" ".join(damage_text(case.damaged))}')
        return case

    def close(self, case: OpenCase, *, at_any_cost: bool) -> bool:
        """Save and close a case, its strokes elsewhere if they must.

        Parameters
        ----------
        case : OpenCase
        at_any_cost : bool
            Close it even if its strokes can be saved nowhere.

        Returns
        -------
        bool
            False if it stays open, because its strokes can be saved nowhere.
        """
        name = case.case.name
        self._closed.add(case.id)  # what its writer still tells is told here
        try:
            kept = close_or_save(case)
        except CaseError as error:
            if not at_any_cost:
                self._closed.discard(case.id)
                self._say(f'Case "{name}" stays open, nothing of it is lost. {error}')
                return False
            case.close(discard=True)
            self._say(f'The last strokes in "{name}" are lost. {error}')
            return True
        if kept is not None:
            self._say(kept_told(kept, case))
        return True

    def save_elsewhere(self, folder: str | Path) -> None:
        """Save what this session has changed into a file in a folder."""
        case = self._session.case
        if case is None:
            return
        try:
            path = save(case, folder)
        except CaseError as error:
            show_error(str(error))
        else:
            show_info(f'Saved {path}. "Bring back …" takes it into the case again.')

    def rescue(self, path: str | Path) -> None:
        """Bring back a file from `save_elsewhere`, as one step that Ctrl+Z takes back."""
        case, layers = self._session.case, self._session.layers
        if case is None or layers is None:
            return
        before = case.revision
        try:
            changes = bring_back(case, path)
        except CaseError as error:
            show_error(str(error))
            return
        count = case.revision - before
        if not count:
            show_info(f"All strokes of {path} are in the case already.")
            return
        layers.add_restored(changes)
        self._session.tell_changed(np.arange(len(case.review)).tolist())
        show_info(f"{_changes(count)} of {path} are back.")

    def _bring_back(self, case: OpenCase) -> None:
        came = bring_back_waiting(case)
        if came.files:
            files = ", ".join(map(str, came.files))
            self.brought_back.emit(
                f'{_changes(came.changes)} that could not be saved are back in "{case.case.name}". '
                f"Kept as well: {files}"
            )
        for problem in came.problems:
            self._session.saving_failed.emit(problem)

    def _on_unsaved(self, case_id: str, error: str) -> None:
        quiet = self._since_told.isValid() and not self._since_told.hasExpired(QUIET)
        if case_id not in self._closed and not quiet:
            self._since_told.start()
            self._session.saving_failed.emit(f"{error} {WAY_OUT}")

    def _say(self, text: str) -> None:
        show_error(text)
        if self._session.closed:  # there is no window left to say it in
            _log.error("%s", text)


def kept_told(kept: Saved, case: OpenCase) -> str:
    """Say where strokes are that a case did not take."""
    return (
        f"{kept.reason} The strokes are kept in {kept.path} "
        f'and come back by themselves when "{case.case.name}" is opened again.'
    )


def _changes(count: int) -> str:
    return f"{count} change{'s' if count != 1 else ''}"
