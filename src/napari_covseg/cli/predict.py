"""``covseg predict``: with a workspace or without."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from napari_covseg.cli.case import check_outputs, open_workspace, write_case_labels, write_map
from napari_covseg.cli.output import (
    DeviceOption,
    JsonOption,
    Output,
    SeenAsOption,
    SeriesOption,
    ValuesOption,
    WorkspaceOption,
    said_values,
    seen_as,
)
from napari_covseg.errors import CaseError, JobError, ScanError
from napari_covseg.jobs.events import PredictionStarted
from napari_covseg.models.catalogue import DEFAULT
from napari_covseg.predict.options import PredictOptions

if TYPE_CHECKING:
    from napari_covseg.cases.case import Case


class Tta(StrEnum):
    """Turned slices that are labelled as well."""

    CARD = "card"
    NONE = "none"
    LUNGS = "lungs"
    FLIP = "flip"
    FLIPS = "flips"


ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name from `covseg models`, or a model file; by default the one that is in use. Repeated, the "
        "mean of all, which have to find the same.",
    ),
]
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
    uncertainty_out: Annotated[
        str | None, typer.Option(help="Write here how unsure the models are of each voxel, 0 to 255.")
    ] = None,
    model: ModelsOption = None,
    device: DeviceOption = "auto",
    batch: Annotated[int | None, typer.Option(min=1, help="Slices per pass.")] = None,
    threshold: Annotated[
        float | None, typer.Option(min=0, max=1, help="Probability from which a voxel is a lesion.")
    ] = None,
    tta: Annotated[
        Tta,
        typer.Option(
            help="Also label turned slices and take the mean: lungs only around the lungs (1.5 passes), "
            "flip the mirror image (2), flips all (4); card as the model card says."
        ),
    ] = Tta.CARD,
    min_ml: Annotated[float, typer.Option(min=0, help="Drop findings of less, in 3-D.")] = 0.0,
    min_pixels: Annotated[int, typer.Option(min=0, help="Drop findings of fewer pixels in a slice.")] = 0,
    lungs_from: Annotated[
        str | None, typer.Option(help="Model that finds the lungs for one that does not see whole slices.")
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Label also what does not look like a chest CT.")
    ] = False,
    seen_as_: SeenAsOption = None,
    values: ValuesOption = None,
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
    if scan is not None and not (out or lungs_out or uncertainty_out):
        raise JobError("There is nothing to write; name a file with --out, --lungs-out or both.")
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.jobs.find_model import model_in_use
    from napari_covseg.jobs.requests import Predict, PredictFile
    from napari_covseg.jobs.run import run

    check_outputs(out, lungs_out, uncertainty_out)
    keep_freed_memory()
    named = model or []
    first, also = (named[0] if named else None), tuple(named[1:])
    unsure = uncertainty_out is not None
    said = seen_as(seen_as_)
    options = PredictOptions(threshold, tta.value, also, lungs_from, min_ml, min_pixels, unsure, anyway, said)
    if scan is not None:
        files = (out, lungs_out, uncertainty_out)
        job = PredictFile(scan, first or DEFAULT, *files, series, device, batch, options, said_values(values))
        output.follow(run(job), "Labelling")
        return
    assert case is not None
    place = open_workspace(workspace)
    opened = place.case(case)
    if values is not None:
        raise ScanError("--values is for a scan; a case keeps the values it was imported with.")
    label = Predict(
        place.path,
        case,
        first or model_in_use(place, DEFAULT),
        first_slice=opened.shape[0] // 2,
        revision=opened.activity.revision,
        device=device,
        batch=batch,
        options=options,
    )
    events = output.follow(run(label), "Labelling")
    prediction_id = next(event.prediction_id for event in events if isinstance(event, PredictionStarted))
    _merge(output, opened, prediction_id)
    write_case_labels(output, opened, out, lungs_out)
    if uncertainty_out is not None:
        _write_uncertainty(output, opened, prediction_id, uncertainty_out)


def _write_uncertainty(output: Output, case: Case, prediction_id: str, path: str) -> None:
    import numpy as np

    made = case.prediction(prediction_id)
    slices = [made.read_uncertainty(z) for z in range(case.shape[0])]
    write_map(output, case, path, np.stack([one for one in slices if one is not None]))


def _merge(output: Output, case: Case, prediction_id: str) -> None:
    """Bring a prediction into the case's labels; where a viewer has the case open, that is left to it."""
    from napari_covseg.cases.merge import merge_prediction

    try:
        changed = merge_prediction(case, case.prediction(prediction_id))
    except CaseError as error:
        raise CaseError(f"The prediction is kept as {prediction_id}, but not merged: {error}") from error
    output.record({"event": "merged", "prediction_id": prediction_id, "slices": changed})
    output.line(f"Labelled {case.id}: {len(changed)} slices have new labels")
