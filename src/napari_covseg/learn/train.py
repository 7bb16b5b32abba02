"""One training run, from top to bottom: sample, augment, step, validate, keep the best."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_covseg.learn.augment import augmentation
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.sampling import Sampler
from napari_covseg.learn.settle import BATCHES, drops, settle
from napari_covseg.learn.training_run import TrainedNetwork, TrainingRun
from napari_covseg.learn.training_set import TrainingSet
from napari_covseg.learn.validation import validate


@dataclass(frozen=True)
class TrainingProgress:
    """What a training run tells after some steps.

    Attributes
    ----------
    step, steps : int
    loss : float
        Mean since the last message.
    seconds : float
        Since this process started the run.
    validation : dict of str to float, or None
        Dice per output, where there was a validation at this step.
    best : bool
        Whether these weights are the best so far.
    """

    step: int
    steps: int
    loss: float
    seconds: float
    validation: dict[str, float] | None = None
    best: bool = False


def train(
    recipe: Recipe,
    training: TrainingSet,
    validation: TrainingSet | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    half: bool = False,
) -> Iterator[TrainingProgress | TrainedNetwork]:
    """Train a network; the last thing yielded is what came of it.

    Every step's slices, augmentation and dropout depend only on the seed and the step, so
    that a run which continues from its checkpoint does what an uninterrupted one would
    have done.

    Parameters
    ----------
    recipe : Recipe
    training, validation : TrainingSet
        Prepared at the recipe's size. Without validation slices the weights after the last
        step are kept.
    device : str
    checkpoint : Path, optional
        Written at once and at every validation; if it exists, the run goes on from there.
    half : bool
        Whether bfloat16 may take over from float32; see `learn.precision`.

    Yields
    ------
    TrainingProgress
        After every tenth step and every validation.
    TrainedNetwork
        With the weights that were best; last.

    Raises
    ------
    ModelError
        If the checkpoint is damaged, or belongs to another recipe or other slices, or
        cannot be written.
    """
    run = TrainingRun(recipe, training, validation, device, half)
    if checkpoint is not None and not run.resume(checkpoint):
        run.write(checkpoint)
    sample = Sampler(recipe, training, augmentation(recipe.augmentation, training.images.shape[-1]))
    watched = run.loss if recipe.selection == "loss" else None
    started, losses = time.perf_counter(), []
    while not run.done:
        images, masks = sample(run.step)
        losses.append(run.update(images.to(device), masks.to(device)))
        scores, best = None, False
        if validated := run.step % run.validate_every == 0 or run.step == run.steps:
            value = float(run.step)
            if drops(run.average):
                recent = range(max(0, run.step - BATCHES), run.step)
                settle(run.average, (sample(step)[0].to(device) for step in recent))
            if validation is not None:
                scores, loss = validate(run.average, validation, device, watched)
                value = -loss if watched else float(np.mean(list(scores.values())))
            best = run.keep(value)
            if checkpoint is not None:
                run.write(checkpoint)
        if validated or run.step % 10 == 0:
            seconds = time.perf_counter() - started
            mean = float(np.mean(losses if validated else losses[-10:]))
            yield TrainingProgress(run.step, run.steps, mean, seconds, scores, best)
            losses = [] if validated else losses
    yield run.result()
