"""``covseg predict``: with a workspace or without."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from napari_covseg.cli.case import check_outputs, open_workspace, write_case_labels
from napari_covseg.cli.output import (
    DeviceOption,
    JsonOption,
    ModelOption,
    Output,
    SeriesOption,
    WorkspaceOption,
)
from napari_covseg.errors import CaseError, JobError
from napari_covseg.jobs.events import RunStarted
from napari_covseg.models.catalogue import DEFAULT

if TYPE_CHECKING:
    from napari_covseg.cases import Case

OutOption = Annotated[
    str | None,
    typer.Option("--out", "--lesions-out", help="Write the lesions here (.nii.gz, .nii, .nrrd or .mha)."),
]


def predict(
    context: typer.Context,
    scan: Annotated[
        str | None, typer.Argument(help="DICOM folder or file, NIfTI, NRRD, MHA, or pictures.")
    ] = None,
    out: OutOption = None,
    lungs_out: Annotated[
        str | None, typer.Option(help="Write the lungs here: 1 right, 2 left, 3 side undetermined.")
    ] = None,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Slices per pass.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which a voxel is a lesion.")
    ] = None,
    series: SeriesOption = None,
    case: Annotated[str | None, typer.Option(help="Label this case of the workspace instead.")] = None,
    workspace: WorkspaceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Label a scan, into files in its own geometry; or a case, into the workspace."""
    output = Output(context, as_json)
    if (scan is None) == (case is None):
        raise JobError("Name either a scan or, with --case, a case of the workspace.")
    if scan is not None and workspace is not None:
        raise JobError("A scan needs no workspace; leave --workspace out, or `covseg import` the scan first.")
    if scan is not None and not (out or lungs_out):
        raise JobError("There is nothing to write; name a file with --out, --lungs-out or both.")
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.jobs.requests import Predict, PredictFile
    from napari_covseg.jobs.run import run

    check_outputs(out, lungs_out)
    keep_freed_memory()
    if scan is not None:
        request = PredictFile(scan, model or DEFAULT, out, lungs_out, series, device, batch, threshold)
        output.follow(run(request), "Labelling")
        return
    from napari_covseg.jobs.find_model import model_in_use

    assert case is not None
    place = open_workspace(workspace)
    opened = place.case(case)
    job = Predict(
        place.path,
        case,
        model or model_in_use(place, DEFAULT),
        first_slice=opened.shape[0] // 2,
        revision=opened.activity.revision,
        device=device,
        batch=batch,
        threshold=threshold,
    )
    events = output.follow(run(job), "Labelling")
    _merge(output, opened, next(event.run_id for event in events if isinstance(event, RunStarted)))
    write_case_labels(output, opened, out, lungs_out)


def _merge(output: Output, case: Case, run_id: str) -> None:
    """Bring a run into the case's labels; where a viewer has the case open, that is left to it."""
    from napari_covseg.cases import merge_run

    try:
        changed = merge_run(case, case.run(run_id))
    except CaseError as error:
        raise CaseError(f"The prediction is kept as run {run_id}, but not merged: {error}") from error
    output.record({"event": "merged", "run_id": run_id, "slices": changed})
    output.line(f"Labelled {case.id}: {len(changed)} slices have new labels")
