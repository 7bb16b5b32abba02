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
    from napari_covseg.cases.workspace import Workspace

    is_case = what is not None and not Path(what).exists()
    if is_case:
        _refuse_unknown(str(what), workspace)
    elif workspace is not None:
        Workspace.open(workspace)  # what is wrong with it is said before a window opens
    import napari

    viewer = napari.Viewer()
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    if workspace is not None:
        dock.session.use_workspace(workspace)
    if what is not None:
        (dock.workbench.opening.case if is_case else dock.workbench.opening.path)(what)
    napari.run()


def _refuse_unknown(what: str, workspace: str | None) -> None:
    """Raise CaseError if `what`, which is no path, is no case either."""
    try:
        open_workspace(workspace).case(what)
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
