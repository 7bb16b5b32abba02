"""``covseg recognise``: what a scan shows, or each X-ray of a folder."""

from __future__ import annotations

from typing import Annotated

import typer

from napari_covseg.cli.output import (
    DeviceOption,
    JsonOption,
    Output,
    SeenAsOption,
    SeriesOption,
    ValuesOption,
    said_values,
    seen_as,
)
from napari_covseg.errors import JobError, ScanError
from napari_covseg.jobs.events import Failed, ScanRecognised, as_record
from napari_covseg.models.card import RESEARCH_USE

RecognisersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="Name from `covseg models`, or a model file, of one that recognises or names manifestations; by "
        "default the first of each kind that has learned from such scans. Repeated, all are asked.",
    ),
]


def recognise(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            metavar="SCAN|FOLDER",
            help="DICOM folder or file, NIfTI, NRRD, MHA, or pictures; of a folder of X-rays each one.",
        ),
    ],
    model: RecognisersOption = None,
    heat_map: Annotated[
        str | None,
        typer.Option(
            metavar="OUT.png",
            help="Write the slice in which COVID-19 is likeliest into this picture, and beside it where the "
            "first model sees that.",
        ),
    ] = None,
    device: DeviceOption = "auto",
    seen_as_: SeenAsOption = None,
    values: ValuesOption = None,
    series: SeriesOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what a chest CT or X-ray is recognised as, and how far that can be trusted. Not for diagnosis."""
    output = Output(context, as_json)
    from napari_covseg.jobs.requests import RecogniseFile
    from napari_covseg.jobs.run import run
    from napari_covseg.scans import scans_in

    scans = [(path, series)] if series is not None else [(str(one), uid) for one, uid in scans_in(path)]
    if len(scans) > 1 and heat_map is not None:
        raise JobError(f"--heat-map is for one scan, and {path} holds {len(scans)}: name one of them.")
    said, meant = seen_as(seen_as_), said_values(values)
    failed, cautions = 0, dict[str, None]()
    for one, uid in scans:
        job = RecogniseFile(one, tuple(model or ()), heat_map, uid, meant, device, said)
        try:
            events = output.follow(run(job), "Recognising")
        except ScanError as error:
            if len(scans) == 1:
                raise
            output.record(as_record(Failed(str(error), user_error=True)))
            output.line(f"{one}: {error}")
            failed += 1
            continue
        for event in events:
            if isinstance(event, ScanRecognised):
                _print(output, event)
                if event.probabilities:
                    cautions[f"{event.model_id}: {event.caution}"] = None
    for caution in (*cautions, RESEARCH_USE):  # once, however many X-rays there are
        output.line(caution)
    if failed:
        raise typer.Exit(1)


def _print(output: Output, event: ScanRecognised) -> None:
    from napari_covseg.recognise.answers import ScanAnswer, in_words

    words = in_words(event.task, event.outputs, ScanAnswer(event.probabilities, event.shares, event.slices))
    if event.shown:
        output.line(f"{event.name}: {words} ({event.model_id})")
    elif event.probabilities:
        output.line(f"{event.name}: no finding; {event.model_id} says {words}")
    else:
        output.line(f"{event.name}: nothing is recognised; {event.caution}")
