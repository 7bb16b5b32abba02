"""``covseg demo`` and ``covseg open``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from napari_covseg.cli.case import open_workspace
from napari_covseg.cli.output import WorkspaceOption
from napari_covseg.errors import CaseError, JobError


def demo(
    screenshot: Annotated[
        Path | None, typer.Option(help="Save a picture of the window here and end, instead of staying open.")
    ] = None,
) -> None:
    """Open napari with the sample case and label it."""
    _need_qt()
    from napari_covseg.panels.demo import run_demo

    run_demo(screenshot)


def open_viewer(
    what: Annotated[
        str | None, typer.Argument(metavar="[SCAN|CASE]", help="Path of a scan, or id of a case.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Open napari with the workbench, and in it a scan or a case."""
    _need_qt()
    place = open_workspace(workspace) if workspace is not None else None
    case = None
    if what is not None and not Path(what).exists():
        case = _case_id(what, workspace)
    import napari

    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    if place is not None:
        dock.session.use_workspace(place.path)
    if case is not None:
        dock.session.open_case(case)
    elif what is not None:
        dock.session.import_path(what)
    napari.run()


def _case_id(what: str, workspace: str | None) -> str:
    """Return the id of a case, if it is one; CaseError if it is neither that nor a path."""
    try:
        return open_workspace(workspace).case(what).id
    except CaseError as error:
        raise CaseError(f"{what} is neither a path nor a case that can be opened. {error}") from error


def _need_qt() -> None:
    """Refuse to go on without a Qt binding, which the package leaves to the user."""
    try:
        import qtpy  # noqa: F401
    except ImportError as error:  # qtpy's own QtBindingsNotFoundError
        raise JobError(
            'napari has no Qt to draw with; install it with: pip install "napari-covseg[desktop]".'
        ) from error
