"""``covseg info`` and ``covseg import``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.output import (
    JsonOption,
    Output,
    SeenAsOption,
    SeriesOption,
    ValuesOption,
    WorkspaceOption,
    said_values,
    seen_as,
)
from napari_covseg.errors import ScanError

if TYPE_CHECKING:
    from napari_covseg.scans import Scan
    from napari_covseg.scans.appearance import Appearance

ScanArgument = Annotated[
    str, typer.Argument(metavar="SCAN", help="DICOM folder or file, NIfTI, NRRD, MHA, or pictures.")
]


def info(
    context: typer.Context,
    path: ScanArgument,
    series: SeriesOption = None,
    show: Annotated[
        str | None,
        typer.Option(
            metavar="OUT.png",
            help="Write a slice into this picture: as the file has it, and beside it as the default model is "
            "shown it.",
        ),
    ] = None,
    slice_: Annotated[
        int | None,
        typer.Option("--slice", min=1, help="The slice for --show, from 1; by default the middle one."),
    ] = None,
    seen_as_: SeenAsOption = None,
    values: ValuesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a scan is: size, spacing, series, what it looks like, and what is unusual about it."""
    output = Output(context, as_json)
    if slice_ is not None and show is None:
        raise ScanError("--slice is for the picture that --show writes; name it, or leave --slice out.")
    if show is not None and not show.lower().endswith(".png"):
        raise ScanError(f"{show} is no name for the picture; let it end in .png.")
    from napari_covseg.scans import list_series, read_scan
    from napari_covseg.scans.stated import look_at

    said = dict(seen_as(seen_as_))
    found = list_series(path) if os.path.isdir(path) else []  # which, unlike Path's, never raises
    scan = read_scan(path, series=series, values=said_values(values), found=found)
    appearance = look_at(scan).overruled(**said)
    if show is not None:
        _show(scan, appearance, slice_, show)
    chosen = series if series is not None or not found else found[0].uid
    others = [
        {name: getattr(one, name) for name in ("uid", "description", "modality", "slices", "plane", "holds")}
        for one in found
    ]
    low, high = int(scan.voxels.min()), int(scan.voxels.max())
    facts: dict[str, Any] = {
        "name": scan.name,
        "path": scan.path,
        "shape": scan.voxels.shape,
        "spacing_mm": scan.spacing,
        "intensity": scan.intensity,
        "range": (low, high),
        "window": scan.window,
        "facts": scan.facts,
        "affine": scan.source_affine.tolist(),
        "patient_id": scan.patient_id,
        "series_uid": scan.series_uid,
        "series": others,
        "notes": scan.notes,
        "appearance": appearance.to_json(),
    }
    output.record(facts)
    z, y, x = scan.voxels.shape
    output.line(f"{scan.name or Path(path).name}: {z} slice{'s'[: z != 1]} of {y} x {x}")
    if scan.spacing is None:
        output.line("spacing    unknown")
    else:
        output.line("spacing    {:.3g} x {:.3g} x {:.3g} mm (z, y, x)".format(*scan.spacing))
    output.line(f"intensity  {scan.intensity}, {low} to {high}")
    if scan.patient_id:
        output.line(f"patient    {scan.patient_id}")
    for one in others:
        mark = "*" if one["uid"] == chosen else " "
        output.line(f"series   {mark} {one['uid']}  {one['holds']}  {one['description']}")
    for fact in scan.facts:
        output.line(f"fact       {fact}")
    for sentence in appearance.sentences():
        output.line(f"look       {sentence}")
    for note in scan.notes:
        output.line(f"note       {note}")
    if show is not None:
        output.line(f"Wrote {show}")


def import_scan(
    context: typer.Context,
    path: ScanArgument,
    workspace: WorkspaceOption = None,
    series: SeriesOption = None,
    seen_as_: SeenAsOption = None,
    values: ValuesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a scan as a case of the workspace."""
    output = Output(context, as_json)
    from napari_covseg.cases.workspace import default_workspace
    from napari_covseg.jobs.requests import Import
    from napari_covseg.jobs.run import run

    folder = workspace or str(default_workspace())
    output.follow(run(Import(folder, path, series, seen_as(seen_as_), said_values(values))), "Importing")


def _show(scan: Scan, appearance: Appearance, number: int | None, path: str) -> None:
    """Write a slice as the file has it, and beside it as the default model is shown it."""
    import cv2
    import numpy as np

    from napari_covseg.files import write_bytes
    from napari_covseg.models.catalogue import DEFAULT, find
    from napari_covseg.models.preparation import Preparation, as_shown
    from napari_covseg.scans.scan import LUNG_WINDOW, in_window

    count = len(scan.voxels)
    if number is not None and number > count:
        raise ScanError(f"{scan.name or scan.path} has no slice {number}; choose one of 1 to {count}.")
    slice_ = scan.voxels[count // 2 if number is None else number - 1]
    shown = as_shown(slice_, appearance, Preparation.from_card(find(DEFAULT).card.preparation))
    low, high = LUNG_WINDOW if scan.intensity == "HU" else scan.window or (0, 2**appearance.bits - 1)
    there = in_window(slice_, (low, high))
    height = max(len(there), len(shown))
    pictures = [
        cv2.resize(one, (max(1, round(one.shape[1] * height / len(one))), height)) for one in (there, shown)
    ]
    gap = np.full((height, 8), 255, np.uint8)
    written, png = cv2.imencode(".png", np.hstack([pictures[0], gap, pictures[1]]))
    assert written
    try:
        write_bytes(Path(path), png.tobytes())
    except OSError as error:
        raise ScanError(f"{path} cannot be written ({error.strerror}); choose another folder.") from error
