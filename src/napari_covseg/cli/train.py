"""``covseg train``."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from napari_covseg.cli.output import DeviceOption, JsonOption, Output
from napari_covseg.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_covseg.jobs.events import Event


def train(
    context: typer.Context,
    data: Annotated[
        Path, typer.Argument(help="Folder with a folder per patient (ct, lungs, infection), or a .toml file.")
    ],
    out: Annotated[Path, typer.Option(help="Model file to write, .safetensors.")],
    fold: Annotated[str | None, typer.Option(help="Keep out the patients of this fold of the data.")] = None,
    validation: Annotated[
        list[str] | None, typer.Option(help="Patient that chooses the best weights; may be repeated.")
    ] = None,
    test: Annotated[list[str] | None, typer.Option(help="Patient to keep out; may be repeated.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimiser steps.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices per step.")] = None,
    seed: Annotated[int, typer.Option(help="Of slices, augmentation and weights.")] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train a model; called again after an interruption, it goes on from the last checkpoint."""
    output = Output(context, as_json)
    if out.suffix != ".safetensors":
        raise ModelError(f"{out} is no model file; let its name end in .safetensors.")
    if not out.absolute().parent.is_dir():
        raise ModelError(f"The folder of {out} does not exist; make it first.")
    from napari_covseg.jobs.allocator import keep_freed_memory
    from napari_covseg.learn.run import split_patients
    from napari_covseg.learn.train import Recipe
    from napari_covseg.learn.training_set import read_training_set
    from napari_covseg.models.file import choose_device

    where = str(choose_device(device))
    keep_freed_memory()
    slices = read_training_set(data)
    split = split_patients(slices, fold, validation or (), test or ())
    for part, names in split.items():
        output.line(f"{part:<10}  {', '.join(names) or 'nobody'}")
    settings: dict[str, Any] = {"steps": steps, "batch": batch, "seed": seed}
    if steps is not None:
        settings["validate_every"] = max(1, steps // 10)
    recipe = Recipe(**{name: value for name, value in settings.items() if value is not None})
    output.follow(_events(output, slices, split, out, recipe, where), "Training")


def _events(
    output: Output, slices: Any, split: Any, out: Path, recipe: Any, device: str
) -> Generator[Event, None, None]:
    """Turn what a training run tells into events."""
    from napari_covseg.jobs.events import Notice, Written
    from napari_covseg.jobs.pace import Pace
    from napari_covseg.learn.run import train_model
    from napari_covseg.learn.train import TrainingProgress

    pace: Pace | None = None
    for told in train_model(slices, split, out, recipe, device=device):
        if not isinstance(told, TrainingProgress):
            continue
        pace = pace or Pace(told.steps, "steps", begun=told.step)
        output.record({"event": "training_progress", **dataclasses.asdict(told)})
        yield pace.at(told.step)
        if told.validation is not None:
            scores = ", ".join(f"{name} {value:.3f}" for name, value in told.validation.items())
            yield Notice(f"step {told.step}: Dice {scores}{' (best)' if told.best else ''}")
    yield Written(str(out))
