"""What the package offers to Python; `napari_covseg` itself has the same names."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import JobError
from napari_covseg.jobs.events import Event, ModelProposed
from napari_covseg.jobs.find_model import model_in_use
from napari_covseg.jobs.requests import Finetune
from napari_covseg.jobs.run import run
from napari_covseg.jobs.segment import Segmentation, segment
from napari_covseg.learn.recipe import read_recipe
from napari_covseg.learn.train import TrainingProgress
from napari_covseg.learn.train_model import read_for, split_patients, teachable, train_model
from napari_covseg.models.card import ModelCard
from napari_covseg.models.catalogue import DEFAULT
from napari_covseg.models.file import choose_device
from napari_covseg.predict.options import PredictOptions
from napari_covseg.scans import Scan, read_scan

__all__ = [
    "ModelCard",
    "PredictOptions",
    "Scan",
    "Segmentation",
    "Workspace",
    "finetune",
    "read_scan",
    "segment",
    "train",
]


def train(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str],
    recipe: str = "covseg",
    *,
    steps: int | None = None,
    fold: str | None = None,
    test: Sequence[str] = (),
    device: str = "auto",
    progress: Callable[[TrainingProgress], None] = lambda progress: None,
) -> ModelCard:
    """Train a model; called again after an interruption, it goes on from the checkpoint beside `out`.

    Parameters
    ----------
    data : path
        Table of sources (TOML); see the page on training.
    out : path
        The model file, ``.safetensors``.
    recipe : str
        Name of a recipe of the package, or a ``.toml`` file with one.
    steps : int, optional
        The recipe's by default.
    fold : str, optional
        One that the data names: its patients test, and teach nothing.
    test : sequence of str
        Further patients, or sources, that test.
    device : str
    progress : callable
        Called every ten steps and after each validation.

    Returns
    -------
    ModelCard
        Of the model written, with its patients and figures.

    Raises
    ------
    ScanError
        If the slices cannot be read.
    ModelError
        If the recipe or the file cannot be used.
    """
    chosen = read_recipe(recipe)
    slices = read_for(data, chosen)
    chosen = teachable(chosen, slices)
    slices = slices.teaching(chosen.outputs)
    chosen = chosen if steps is None else chosen.shortened(steps)
    split = split_patients(slices, fold, (), test)
    for event in train_model(slices, split, Path(out), chosen, device=str(choose_device(device))):
        if isinstance(event, ModelCard):
            return event
        progress(event)
    raise JobError(f"The training of {out} has ended without a model: run it again.")


def finetune(
    workspace: Workspace,
    cases: Sequence[str],
    model: str | None = None,
    *,
    minutes: float | None = None,
    device: str = "auto",
    progress: Callable[[Event], None] = lambda event: None,
) -> ModelProposed | None:
    """Let a model learn from the corrected and accepted slices of cases.

    Parameters
    ----------
    workspace : Workspace
    cases : sequence of str
        Ids.
    model : str, optional
        Id or name; by default the model in use.
    minutes : float, optional
        Time for the steps; by default as many steps as suit the slices.
    device : str
    progress : callable
        Called with every event of the job.

    Returns
    -------
    ModelProposed or None
        What a person may keep or discard, with its measurements; None where nothing was better.

    Raises
    ------
    CaseError, ModelError, JobError
        If there is nothing to learn from, or the model cannot be used.
    """
    name = model or model_in_use(workspace, DEFAULT)
    seconds = None if minutes is None else 60 * minutes
    proposed = None
    for event in run(Finetune(workspace.path, tuple(cases), name, seconds, device=device)):
        progress(event)
        if isinstance(event, ModelProposed):
            proposed = event
    return proposed
