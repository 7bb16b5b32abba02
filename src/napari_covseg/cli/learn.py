"""``covseg finetune``: a model learns from what was corrected in a workspace."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from napari_covseg.cli.case import open_workspace
from napari_covseg.cli.output import DeviceOption, JsonOption, ModelOption, Output
from napari_covseg.errors import JobError
from napari_covseg.jobs.events import ModelProposed, Progress, TrainingStep
from napari_covseg.models.catalogue import DEFAULT

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_covseg.jobs.events import Event


def finetune(
    context: typer.Context,
    workspace: Annotated[str, typer.Argument(help="Folder of the workspace.")],
    case: Annotated[
        list[str], typer.Option(help="Case to learn from, by its id from `covseg cases`; may be repeated.")
    ],
    model: ModelOption = None,
    minutes: Annotated[float | None, typer.Option(help="Time for the training at most.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="Optimiser steps; by default what suits the slices.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of slices and augmentation.")] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Fine-tune a model on corrected and accepted slices; `covseg models keep` takes it into use."""
    output = Output(context, as_json)
    if minutes is not None and minutes <= 0:
        raise JobError(f"--minutes {minutes:g} is no time to train: give more than 0.")
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.jobs.find_model import model_in_use
    from napari_covseg.jobs.requests import Finetune
    from napari_covseg.jobs.run import run

    keep_freed_memory()
    place = open_workspace(workspace)
    start = model or model_in_use(place, DEFAULT)
    seconds = None if minutes is None else 60 * minutes
    job = Finetune(place.path, tuple(case), start, seconds, steps, device, seed)
    events = output.follow(_as_progress(run(job)), "Learning")
    for event in events:
        if isinstance(event, ModelProposed):
            _print_proposal(output, event)


def _as_progress(events: Generator[Event, None, None]) -> Generator[Event, None, None]:
    """Show the steps of a training as progress, and tell what was measured."""
    with closing(events):
        for event in events:
            yield event
            if isinstance(event, TrainingStep):
                yield Progress(event.step, event.steps, "steps")
                if event.held_out is not None:
                    scores = ", ".join(f"{name} {value:.3f}" for name, value in event.held_out.items())
                    typer.echo(f"Step {event.step}: held-out Dice {scores}", err=True)


def _print_proposal(output: Output, event: ModelProposed) -> None:
    output.line(f"Proposed {event.model_id}, learned on from {event.parent}. {event.reason}")
    for part, scores in event.scores.items():
        told = ", ".join(
            f"{name} {scores['before'][name]:.3f} -> {value:.3f}" for name, value in scores["after"].items()
        )
        output.line(f"    {part:<32}  {told}")
    output.line(f"`covseg models keep {event.model_id} --workspace ...` takes it into use.")
