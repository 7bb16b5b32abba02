"""How a scan gets into a session, and out of it again without a stroke being lost."""

from __future__ import annotations

import logging
from contextlib import suppress
from pathlib import Path
from typing import Any

from napari.layers import Image
from napari.utils.notifications import show_error, show_info, show_warning
from qtpy.QtCore import QElapsedTimer, QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QMessageBox

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import Saved, bring_back, bring_back_waiting, close_or_save, save
from napari_covseg.errors import CaseError, CovsegError
from napari_covseg.jobs.events import END, Event, Failed, Imported, Notice, Progress
from napari_covseg.jobs.requests import Import
from napari_covseg.panels.background import Abandoned, Jobs, errors_shown, in_background
from napari_covseg.panels.case_layers import CaseLayers
from napari_covseg.panels.layers import remove_layers
from napari_covseg.panels.napari_private import qt_window
from napari_covseg.panels.preferences import prefer, preferred
from napari_covseg.panels.scan.facts import damage_text
from napari_covseg.panels.scan.scan_of_layer import scan_header, scan_of_layer
from napari_covseg.panels.session import Session
from napari_covseg.scans import Values

_log = logging.getLogger(__name__)
QUIET = 60_000  # ms between two notes that saving fails; each stroke tries again
SAVE_ELSEWHERE = (
    'Until then "Save elsewhere …" in the History step keeps the strokes of this session in a file.'
)
NOT_SAVED = "CovSeg: not saved"


class Opening(QObject):
    """Opens scans for a session, from a file, a layer or the workspace, and closes their cases.

    A layer that this package's reader (or its sample data) puts into a viewer without a
    case is taken as the scan at once.

    Parameters
    ----------
    session : Session
    jobs : Jobs

    Signals
    -------
    found_again : bool
        Whether a scan was opened that is a case already, of which `anew` makes another.
    brought_back, damaged, saving_failed : str
        What a thread that opens or writes a case has to say.
    """

    found_again = Signal(bool)
    brought_back = Signal(str)
    damaged = Signal(str)
    saving_failed = Signal(str)
    _unsaved = Signal(str, str)

    def __init__(self, session: Session, jobs: Jobs) -> None:
        super().__init__(session)
        self._session = session
        self._jobs = jobs
        self._job: int | None = None
        self._source: tuple[str, str | None] = "", None  # path and series of what was opened
        self._drawing = False
        self._waiting: Image | None = None  # a scan that was opened while something else was done
        self._closed: set[str] = set()  # ids of cases; what their writers still have to say is shown already
        self._last_note = QElapsedTimer()
        self.brought_back.connect(show_info)
        self.damaged.connect(show_warning)
        self.saving_failed.connect(show_error)
        self._unsaved.connect(self._on_unsaved)
        session.cancel_requested.connect(self._on_cancel)
        session.busy_changed.connect(self._on_busy)
        layers = session.viewer.layers
        layers.events.inserted.connect(self._on_layer_inserted)
        layers.events.removing.connect(self._on_layer_removing)
        layers.events.removed.connect(self._on_layer_removed)

    # --- opening ------------------------------------------------------------------

    def path(self, path: str | Path, series: str | None = None, values: Values | None = None) -> None:
        """Read a file or folder into a case, in the child, and open it; the one that it is already, if any.

        Parameters
        ----------
        path : path-like
        series : str, optional
            UID of one of the folder's DICOM series.
        values : {"HU", "HU+1024", "grey"}, optional
            What a person says that its values are; they make a new case.
        """
        self._open(str(path), series, values, anew=values is not None)

    def anew(self) -> None:
        """Make another case of the scan whose case was opened instead."""
        path, series = self._source
        self._open(path, series, None, anew=True)

    def _open(self, path: str, series: str | None, values: Values | None, *, anew: bool) -> None:
        self._source = path, series
        self.found_again.emit(False)
        self._session.begin(f"Reading {Path(path).name}", "scan")
        try:
            request = Import(self._session.workspace.path, path, series, values=values, anew=anew)
            self._job = self._jobs.submit(request, self._on_event)
        except CovsegError as error:
            self._session.end(str(error))

    def layer(self, layer: Image) -> None:
        """Make an image layer that is in the viewer the scan of a case, and open that."""
        session = self._session
        self.found_again.emit(False)
        session.begin(f"Taking over {layer.name}", "scan")

        def on_progress(done: int, total: int) -> None:
            if session.cancelled:
                raise Abandoned
            session.progressed.emit(Progress(done, total, "slices"))

        def keep() -> tuple[str, str, bool]:
            scan = scan_of_layer(layer)
            known = session.workspace.find_case(scan)
            return scan.path, known or session.workspace.add_case(scan, on_progress), known is not None

        def on_kept(kept: tuple[str, str, bool]) -> None:
            path, case_id, known = kept
            self._source = path, None
            self._open_case(case_id, known=known, layer=layer)

        def on_failed(error: str) -> None:
            layer.visible = session.case is None  # else it would lie over another patient's
            self._on_unread(error)

        in_background(keep, on_kept, on_failed)

    def _open_case(self, case_id: str, *, known: bool, layer: Image | None = None) -> None:
        """Open a case that was made of a layer or file, or that was found to be one already."""
        session = self._session
        if known and session.case is not None and session.case.id == case_id:
            remove_layers(session.viewer, layer)
            session.bring_back_layers()
            session.end()
            show_info("This scan is open already.")
            self.found_again.emit(bool(self._source[0]))
            return

        def on_read(case: OpenCase) -> None:
            self.show(case, layer)
            if known and session.case is case:
                show_info(f'This scan is a case already, "{case.case.name}": it is open as it was left.')
                self.found_again.emit(bool(self._source[0]))

        in_background(lambda: self.read(case_id), on_read, self._on_unread)

    def known_layers(self) -> None:
        """Take over a layer of this package's reader that was there before the dock."""
        for layer in self._session.viewer.layers:
            self._consider(layer)

    def case(self, case_id: str) -> None:
        """Open a case of the workspace; of the open one, bring back what was taken out of the viewer."""
        if self._session.case is not None and self._session.case.id == case_id:
            self._session.bring_back_layers()
            return
        self.found_again.emit(False)
        self._session.begin("Opening the case", "scan")
        in_background(lambda: self.read(case_id), self.show, self._on_unread)

    def rename(self, name: str) -> None:
        """Call the open case otherwise, everywhere that it is shown."""
        session = self._session
        if session.case is not None and session.layers is not None:
            with errors_shown():
                session.case.rename(name)
                session.layers.rename()
                session.case_changed.emit()

    def delete(self) -> None:
        """Close the open case and move it to the trash of the workspace."""
        session = self._session
        if session.case is None or not session.can_edit:
            return
        case_id, name = session.case.id, session.case.case.name
        if self.close():
            with errors_shown():
                session.workspace.delete_case(case_id)
                show_info(f'"{name}" is in the trash; "Undo delete" takes it back.')
            session.case_changed.emit()

    def undelete(self) -> None:
        """Take the case back that was deleted last, and open it."""
        session = self._session
        with errors_shown():
            deleted = session.workspace.deleted
            if deleted:
                session.workspace.undelete_case(deleted[0])
                self.case(deleted[0])

    def use_workspace(self, folder: str | Path) -> None:
        """Close the open case, and keep and list cases in another folder from now on, and the next time."""
        if self.close():
            with errors_shown():
                self._session.use_workspace(folder)
                prefer("workspace", self._session.workspace.path)

    def read(self, case_id: str) -> OpenCase:
        """Open a case, in whatever thread, and bring back what was saved elsewhere.

        Somebody else may have it, or its folder may not be written: it is then read-only.

        Raises
        ------
        CaseError
            If it cannot be read.
        """
        workspace = self._session.workspace
        self._closed.discard(case_id)
        try:
            case = OpenCase(
                workspace,
                case_id,
                who=preferred("who", ""),
                on_error=lambda error: self._unsaved.emit(case_id, str(error)),
            )
        except CaseError as error:
            case = OpenCase(workspace, case_id, read_only=True)
            self.saving_failed.emit(f"{error} It is open here to look at, not to change.")
        else:
            self._bring_back(case)
        _ = case.found  # of a case that nobody has looked at; here, as it takes a moment
        if case.damaged:
            self.damaged.emit(f'Case "{case.case.name}" was damaged. {" ".join(damage_text(case.damaged))}')
        return case

    def show(self, case: OpenCase, instead_of: Image | None = None) -> None:
        """Draw a case that was read, in place of the one before, if that one can be closed.

        Parameters
        ----------
        case : OpenCase
        instead_of : Image, optional
            A layer that shows the same scan already.
        """
        session = self._session
        if session.closed or not self.close():
            self._save_and_close(case, at_any_cost=True)
            return
        session.case = case
        self._drawing = True
        session.layers = CaseLayers(session.viewer, case, session.mark_changed, instead_of)
        self._drawing = False
        session.layers.scan.events.contrast_limits.connect(lambda: session.window_changed.emit())
        session.end()
        session.case_changed.emit()
        session.labels_changed.emit()

    def _consider(self, layer: Any) -> None:
        """Take over a layer if it is a known scan: one case is on screen, the one that was opened last."""
        session = self._session
        if self._drawing or session.closed or not isinstance(layer, Image) or scan_header(layer) is None:
            return
        if not session.busy_with:
            self.layer(layer)
        else:
            self._waiting, layer.visible = layer, False
            show_info(f'"{layer.name}" is opened when this has ended: {session.busy_with}.')

    def _on_busy(self, what: str) -> None:
        if not what and self._waiting is not None:
            QTimer.singleShot(0, self._take_waiting)  # what ends may still be about to draw its own

    def _take_waiting(self) -> None:
        session = self._session
        if session.busy_with or session.closed:
            return
        layer, self._waiting = self._waiting, None
        if layer is not None and layer in session.viewer.layers:
            layer.visible = True
            self.layer(layer)

    def _bring_back(self, case: OpenCase) -> None:
        came = bring_back_waiting(case)
        if came.files:
            files = ", ".join(map(str, came.files))
            self.brought_back.emit(
                f'{_changes(came.changes)} that could not be saved are back in "{case.case.name}". '
                f"Kept as well: {files}"
            )
        for problem in came.problems:
            self.saving_failed.emit(problem)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._session.progressed.emit(event)
        elif isinstance(event, Notice):
            show_info(event.text)
        elif isinstance(event, Imported):
            self._job = None
            self._open_case(event.case_id, known=event.known)
        elif isinstance(event, END) and self._job is not None:
            self._job = None
            self._session.end(event.message if isinstance(event, Failed) else "")

    def _on_unread(self, error: str) -> None:
        self._session.end()  # the error was shown already

    def _on_cancel(self) -> None:
        if self._job is not None:
            self._jobs.cancel(self._job)

    # --- closing ------------------------------------------------------------------

    def close(self, *, at_any_cost: bool = False) -> bool:
        """Save and close the open case, and take its layers out of the viewer.

        Parameters
        ----------
        at_any_cost : bool
            Close it even if its strokes can be saved nowhere.

        Returns
        -------
        bool
            False if it stays open, because its strokes can be saved nowhere.
        """
        session = self._session
        session.cancel()
        session.case_closing.emit()
        self._job = None
        if session.busy_with:
            session.end()  # the handlers that were to end it are gone
        if session.case is not None and not self._save_and_close(session.case, at_any_cost=at_any_cost):
            session.end()
            return False
        layers, session.layers = session.layers, None
        case, session.case = session.case, None
        if layers is not None:
            layers.remove()
        if case is not None:
            session.case_changed.emit()
        return True

    def may_close_window(self) -> bool:
        """Save the open case; if its workspace cannot be written, do what can be done and say it."""
        case = self._session.case
        if case is None or self._session.closed:
            return True
        with suppress(CaseError):  # shown below, with what became of the strokes
            case.flush()
            return True
        window = qt_window(self._session.viewer)
        try:
            kept = close_or_save(case)
        except CaseError as error:
            answer = QMessageBox.warning(
                window,
                NOT_SAVED,
                f'{error}\n\nClose the window and lose the last strokes in "{case.case.name}"?',
                QMessageBox.StandardButton.Discard | QMessageBox.StandardButton.Cancel,
                QMessageBox.StandardButton.Cancel,
            )
            return bool(answer == QMessageBox.StandardButton.Discard)
        self.close()  # its jobs and layers; first, as the message lets them go on
        if kept is not None:
            QMessageBox.information(window, NOT_SAVED, kept_text(kept, case))
        return True

    def _save_and_close(self, case: OpenCase, *, at_any_cost: bool) -> bool:
        """Save a case, its strokes elsewhere if they must; return whether it is closed."""
        name = case.case.name
        self._closed.add(case.id)
        try:
            kept = close_or_save(case)
        except CaseError as error:
            if not at_any_cost:
                self._closed.discard(case.id)
                self._show_error(f'Case "{name}" stays open, nothing of it is lost. {error}')
                return False
            case.close(discard=True)
            self._show_error(f'The last strokes in "{name}" are lost. {error}')
            return True
        if kept is not None:
            self._show_error(kept_text(kept, case))
        return True

    def _show_error(self, text: str) -> None:
        show_error(text)
        if self._session.closed:  # there is no window left to show it in
            _log.error("%s", text)

    # --- strokes that the workspace does not take -------------------------------------

    def save_elsewhere(self, folder: str | Path) -> None:
        """Save what this session has changed into a file in a folder."""
        case = self._session.case
        if case is None:
            return
        with errors_shown():
            path = save(case, folder)
            show_info(f'Saved {path}. "Bring back …" takes it into the case again.')

    def rescue(self, path: str | Path) -> None:
        """Bring back a file from `save_elsewhere`, as one step that Ctrl+Z takes back."""
        case, layers = self._session.case, self._session.layers
        if case is None or layers is None:
            return
        before = case.revision
        with errors_shown():
            changes = bring_back(case, path)
            count = case.revision - before
            if not count:
                show_info(f"All strokes of {path} are in the case already.")
                return
            layers.add_restored(changes, range(before + 1, case.revision + 1))
            self._session.mark_changed(range(len(case.review)))
            show_info(f"{_changes(count)} of {path} are back.")

    def _on_unsaved(self, case_id: str, error: str) -> None:
        quiet = self._last_note.isValid() and not self._last_note.hasExpired(QUIET)
        if case_id not in self._closed and not quiet:
            self._last_note.start()
            self.saving_failed.emit(f"{error} {SAVE_ELSEWHERE}")

    # --- what happens in the viewer -------------------------------------------------

    def _on_layer_inserted(self, event: Any) -> None:
        self._consider(event.value)

    def _on_layer_removing(self, event: Any) -> None:
        # with its scan gone and a brush in the hand, the canvas can crash
        session = self._session
        if session.layers is not None and session.viewer.layers[event.index] is session.layers.scan:
            for layer in session.layers.labels.values():
                layer.mode = "pan_zoom"

    def _on_layer_removed(self, event: Any) -> None:
        layers = self._session.layers
        if layers is not None and event.value is layers.scan:
            # not now: napari may be about to take out more of them
            QTimer.singleShot(0, self._close_without_scan)
        elif layers is not None:
            layers.forget(event.value)

    def _close_without_scan(self) -> None:
        layers = self._session.layers
        if layers is not None and layers.scan not in self._session.viewer.layers:
            self.close(at_any_cost=True)


class ClosingWindow(QObject):
    """Lets the viewer's window close once the strokes are safe, or the person gives them up.

    Parameters
    ----------
    opening : Opening
    window : QWidget
    """

    def __init__(self, opening: Opening, window: QObject) -> None:
        super().__init__(opening)
        self._opening = opening
        window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Hold the window back when the person wants to stay."""
        if event.type() == QEvent.Type.Close and not self._opening.may_close_window():
            event.ignore()
            return True
        return False


def kept_text(kept: Saved, case: OpenCase) -> str:
    """Say where strokes are that a case did not take."""
    return (
        f"{kept.reason} The strokes are kept in {kept.path} "
        f'and come back by themselves when "{case.case.name}" is opened again.'
    )


def _changes(count: int) -> str:
    return f"{count} change{'s' if count != 1 else ''}"
