"""``covseg info`` and ``covseg import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from napari_covseg.cli.output import JsonOption, Output, SeriesOption, WorkspaceOption

ScanArgument = Annotated[
    str, typer.Argument(metavar="SCAN", help="DICOM folder or file, NIfTI, NRRD, MHA, or pictures.")
]


def info(
    context: typer.Context, path: ScanArgument, series: SeriesOption = None, as_json: JsonOption = False
) -> None:
    """Show what a scan is: size, spacing, series, and what is unusual about it."""
    output = Output(context, as_json)
    from napari_covseg.scans import read_scan

    scan = read_scan(path, series=series)
    others = _series(path)
    low, high = int(scan.voxels.min()), int(scan.voxels.max())
    facts: dict[str, Any] = {
        "name": scan.name,
        "path": scan.path,
        "shape": scan.voxels.shape,
        "spacing_mm": scan.spacing,
        "intensity": scan.intensity,
        "range": (low, high),
        "affine": scan.source_affine.tolist(),
        "patient_id": scan.patient_id,
        "series_uid": scan.series_uid,
        "series": others,
        "notes": scan.notes,
    }
    output.record(facts)
    z, y, x = scan.voxels.shape
    output.line(f"{scan.name or Path(path).name}: {z} slices of {y} x {x}")
    if scan.spacing is None:
        output.line("spacing    unknown")
    else:
        output.line("spacing    {:.3g} x {:.3g} x {:.3g} mm (z, y, x)".format(*scan.spacing))
    output.line(f"intensity  {scan.intensity}, {low} to {high}")
    if scan.patient_id:
        output.line(f"patient    {scan.patient_id}")
    for one in others:
        mark = "*" if one["uid"] == scan.series_uid else " "
        output.line(
            f"series   {mark} {one['uid']}  {one['slices']} {one['plane']} {one['modality']} "
            f"slices  {one['description']}"
        )
    for note in scan.notes:
        output.line(f"note       {note}")


def import_scan(
    context: typer.Context,
    path: ScanArgument,
    workspace: WorkspaceOption = None,
    series: SeriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Keep a scan as a case of the workspace."""
    output = Output(context, as_json)
    from napari_covseg.cases import default_workspace
    from napari_covseg.jobs.requests import Import
    from napari_covseg.jobs.run import run

    folder = workspace or str(default_workspace())
    output.follow(run(Import(folder, path, series)), "Importing")


def _series(path: str) -> list[dict[str, Any]]:
    from napari_covseg.scans import list_series

    if not Path(path).is_dir():
        return []
    return [
        {name: getattr(one, name) for name in ("uid", "description", "modality", "slices", "plane")}
        for one in list_series(path)
    ]
