"""``covseg train``."""

from __future__ import annotations

import dataclasses
import re
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.output import DeviceOption, JsonOption, Output
from napari_covseg.errors import ModelError
from napari_covseg.labels import OUTPUTS, Task
from napari_covseg.learn.recipe import OURS, read_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from napari_covseg.jobs.events import Event
    from napari_covseg.learn.recipe import Recipe

TASKS: tuple[Task, ...] = ("segmentation", "recognition", "manifestations")
"""What can be trained for."""


def train(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="Folder with a folder per patient (ct, lungs, infection), or a .toml file.")
    ],
    out: Annotated[Path, typer.Option(help="Model file to write, .safetensors.")],
    task: Annotated[
        str,
        typer.Option(
            help="segmentation of slices; recognition, of which class single pictures are; or "
            "manifestations, which findings slices show."
        ),
    ] = "segmentation",
    fold: Annotated[str | None, typer.Option(help="Keep out the patients of this fold of the data.")] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Patient that chooses the best weights; may be repeated.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="Patient to keep out; may be repeated.")] = None,
    recipe: Annotated[
        str, typer.Option(help="How to train: a name (a wrong one lists all) or a file.")
    ] = OURS,
    outputs: Annotated[
        str | None,
        typer.Option(
            help='What to teach, as "lungs, consolidation"; by default all that the data labels.',
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="Time to take, as 90s, 60m or 8h: the recipe is shortened to fit.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the slices.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices per step.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Pixels per side of a prepared slice.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of slices, augmentation and weights.")] = 0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; by default all cores.")] = None,
    lungs_from: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Crop to the lungs that this model finds; a name or a file.",
            show_default=False,
        ),
    ] = None,
    start_from: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Begin with the layers of this model whose names and shapes agree.",
            show_default=False,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Not for segmentation: what the body knows, a saved state_dict() or .safetensors.",
            show_default=False,
        ),
    ] = None,
    half: Annotated[
        bool | None,
        typer.Option(
            help="Compute in bfloat16 if it does the same as float32.", show_default="on a GPU only"
        ),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="Where it goes on from; by default beside the model.", show_default=False),
    ] = None,
    export_average: Annotated[
        Path | None,
        typer.Option(help="Train no further: write the weights of the checkpoint here.", show_default=False),
    ] = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model; called again after an interruption, it goes on from the last checkpoint.

    Asked to end (SIGTERM), it writes the checkpoint after the step at hand and no model file.
    """
    output = Output(context, as_json)
    if out.suffix != ".safetensors":
        raise ModelError(f"{out} is no model file; let its name end in .safetensors.")
    if not out.absolute().parent.is_dir():
        raise ModelError(f"The folder of {out} does not exist; make it first.")
    if (wanted := next((one for one in TASKS if one == task), None)) is None:
        raise ModelError(f"There is no training for the task {task!r}: choose {' or '.join(TASKS)}.")
    chosen = dataclasses.replace(read_recipe(recipe, wanted), seed=seed)
    chosen = chosen if batch is None else dataclasses.replace(chosen, batch=batch)
    chosen = chosen if size is None else chosen.at_size(size)
    chosen = chosen if start_from is None else dataclasses.replace(chosen, warm_start=str(start_from))
    seconds = None if budget is None else seconds_of(budget)
    if [steps, epochs, budget].count(None) < 2:
        raise ModelError("Give one of --steps, --epochs and --budget: each says how long to train.")
    given = {
        "--outputs": outputs, "--budget": budget, "--lungs-from": lungs_from, "--start-from": start_from,
        "--half": half, "--checkpoint": checkpoint, "--export-average": export_average,
    }  # fmt: skip
    if wanted != "segmentation":
        if useless := [name for name, value in given.items() if value is not None]:
            raise ModelError(f"{useless[0]} is for segmentation: leave it out.")
        if steps is not None or epochs is not None:
            chosen = dataclasses.replace(chosen, steps=steps, epochs=epochs)
        parts = fold, validation or (), test or ()
        _whole(output, data, out, chosen, parts, weights, device, threads)
        return
    if weights is not None:
        raise ModelError("--weights is not for segmentation: give a model to begin with by --start-from.")
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.learn.train_model import read_for, split_patients, teachable, train_model
    from napari_covseg.models.catalogue import find
    from napari_covseg.models.file import choose_device, load_model

    where = str(choose_device(device))
    keep_freed_memory()
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    if outputs is not None:
        named = tuple(name.strip() for name in outputs.split(","))
        if unknown := [name for name in named if name not in OUTPUTS]:
            raise ModelError(f"There is no output {unknown[0]!r}: known are {', '.join(OUTPUTS)}.")
        chosen = dataclasses.replace(chosen, outputs=named)
    slices = read_for(data, chosen)
    if outputs is None:
        chosen = teachable(chosen, slices)
        slices = slices.teaching(chosen.outputs)
    output.line(f"outputs     {', '.join(chosen.outputs)}")
    split = split_patients(slices, fold, validation or (), test or ())
    for part, names in split.items():
        output.line(f"{part:<10}  {', '.join(names) or 'nobody'}")
    if epochs is not None:
        steps = epochs * chosen.epoch(len(slices.only(set(split["training"]))))
    if steps is not None:
        chosen = chosen.shortened(steps)
    options: dict[str, Any] = {"device": where, "budget": seconds, "half": half, "checkpoint": checkpoint}
    options["stop"] = _stopped_by(signal.SIGTERM)
    if export_average is not None:
        options |= {"as_it_is": True, "checkpoint": checkpoint or out.with_suffix(".checkpoint")}
        if not options["checkpoint"].is_file():
            raise ModelError(f"There is no checkpoint {options['checkpoint']}: nothing was trained yet.")
        out = export_average
    if lungs_from is not None:
        options["lungs_from"] = load_model(find(lungs_from).path, where)
    output.follow(_events(output, train_model(slices, split, out, chosen, **options), out), "Training")


def _whole(
    output: Output,
    data: Path,
    out: Path,
    recipe: Recipe,
    parts: tuple[str | None, Sequence[str], Sequence[str]],
    weights: Path | None,
    device: str,
    threads: int | None,
) -> None:
    """Teach a network what whole pictures or slices show."""
    import torch

    from napari_covseg.learn.labelled_pictures import read_labelled_pictures
    from napari_covseg.learn.manifestations import SIDE, as_seen, train_manifestations
    from napari_covseg.learn.recognition import train_recognition
    from napari_covseg.learn.train_model import split_patients
    from napari_covseg.learn.training_set import read_training_set
    from napari_covseg.models.file import choose_device
    from napari_covseg.models.preparation import Preparation

    where = str(choose_device(device))
    if threads is not None:
        torch.set_num_threads(threads)
    stop = _stopped_by(signal.SIGTERM)
    how: dict[str, Any] = {"weights": weights, "device": where, "stop": stop}
    run: Any
    if recipe.task == "recognition":
        pictures = read_labelled_pictures(data).of_classes(recipe.outputs)
        split = split_patients(pictures, *parts)
        run = train_recognition(pictures, split, out, recipe, **how)
    else:
        read = read_training_set(data, outputs=recipe.outputs, size=max(SIDE, recipe.size))
        slices = as_seen(read, Preparation.from_card(recipe.preparation))
        split = split_patients(slices, *parts)
        run = train_manifestations(slices, split, out, recipe, **how)
    output.line(f"outputs     {', '.join(recipe.outputs)}")
    for part, names in split.items():
        output.line(f"{part:<10}  {', '.join(names) or 'nobody'}")
    if weights is None and not recipe.pretrained and recipe.task == "recognition":
        output.line("The body keeps random weights: give better ones with --weights.")
    output.follow(_events(output, run, out, "Asked to end: no model was written."), "Training")


def _stopped_by(number: int) -> Callable[[], bool]:
    """Return whether this signal has come since."""
    came = threading.Event()
    if threading.current_thread() is threading.main_thread():  # nobody else may ask for signals
        signal.signal(number, lambda *_: came.set())
    return came.is_set


def seconds_of(budget: str) -> float:
    """Read a time such as 90s, 60m or 1.5h; raises ModelError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|min|h)", budget.strip())
    if not match or float(match[1]) == 0:
        raise ModelError(f"The budget {budget!r} is no time: give it as 90s, 60m or 8h.")
    return float(match[1]) * {"s": 1, "m": 60, "min": 60, "h": 3600}[match[2]]


def _events(
    output: Output,
    run: Any,
    out: Path,
    ended: str = "Asked to end: the same command goes on from the checkpoint.",
) -> Generator[Event, None, None]:
    """Turn what a training run tells into events."""
    from napari_covseg.jobs.events import Notice, Written
    from napari_covseg.jobs.steps import ProgressMeter
    from napari_covseg.learn.train import TrainingProgress

    pace: ProgressMeter | None = None
    told: Any = None
    for told in run:
        if not isinstance(told, TrainingProgress):
            continue
        meter = pace or ProgressMeter(told.steps, "steps", begun=told.step)
        output.record({"event": "training_progress", **dataclasses.asdict(told)})
        yield meter.at(told.step)
        if told.validation is not None:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in told.validation.items())
            yield Notice(f"step {told.step}: Dice {scores}{' (best)' if told.best else ''}")
    if isinstance(told, TrainingProgress) or told is None:
        yield Notice(ended)
    else:
        yield Written(str(out))
