"""How a scan gets into a session: from a file, from a layer, from the cases there are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_info

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import END, Event, Failed, Imported, Notice, Progress
from napari_covseg.jobs.requests import Import
from napari_covseg.panels.background import Abandoned, in_background
from napari_covseg.panels.scan.scan_of_layer import scan_header, scan_of_layer

if TYPE_CHECKING:
    from napari_covseg.panels.session import Session


class Opening:
    """Opens scans for a session; each way ends in an open case on screen.

    A layer that this package's reader (or its sample data) puts into a viewer without a
    case is taken as the scan at once.

    Parameters
    ----------
    session : Session
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    def path(self, path: str | Path, series: str | None = None) -> None:
        """Read a file or folder into a new case, in the child, and open it.

        Parameters
        ----------
        path : path-like
        series : str, optional
            UID of one of the folder's DICOM series.
        """
        session = self._session
        session.begin(f"Reading {Path(path).name}", "scan")
        try:
            request = Import(session.workspace.path, str(path), series)
            session.job = session.work.submit(request, self._hear)
        except CovsegError as error:
            session.end(str(error))

    def layer(self, layer: Image) -> None:
        """Make an image layer that is in the viewer the scan of a new case, and open it."""
        session = self._session
        session.begin(f"Taking over {layer.name}", "scan")

        def told(done: int, total: int) -> None:
            if session.cancel_asked:
                raise Abandoned
            session.progressed.emit(Progress(done, total, "slices"))

        def keep() -> OpenCase:
            return session.rescuing.open(session.workspace.add_case(scan_of_layer(layer), told))

        in_background(keep, lambda case: session.show_case(case, layer), session.end_told)

    def case(self, case_id: str) -> None:
        """Open a case of the workspace."""
        session = self._session
        if session.case is not None and session.case.id == case_id:
            return
        session.begin("Opening the case", "scan")
        in_background(lambda: session.rescuing.open(case_id), session.show_case, session.end_told)

    def consider(self, layer: Any) -> None:
        """Take over a layer that has just come, if it is a known scan and none is open."""
        free = self._session.case is None and not self._session.busy_with
        if free and isinstance(layer, Image) and scan_header(layer) is not None:
            self.layer(layer)

    def known_layer(self) -> None:
        """Take over a layer of this package's reader that was there before the dock."""
        for layer in self._session.viewer.layers:
            self.consider(layer)

    def _hear(self, event: Event) -> None:
        session = self._session
        if isinstance(event, Progress):
            session.progressed.emit(event)
        elif isinstance(event, Notice):
            show_info(event.text)
        elif isinstance(event, Imported):
            session.job = None
            case_id = event.case_id
            in_background(lambda: session.rescuing.open(case_id), session.show_case, session.end_told)
        elif isinstance(event, END) and session.job is not None:
            session.end(event.message if isinstance(event, Failed) else "")
