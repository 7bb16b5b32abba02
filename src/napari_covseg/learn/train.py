"""One training run, from top to bottom: sample, augment, step, validate, keep the best."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_covseg.files import write_text
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


CHECKPOINT_EVERY = 300.0
"""Seconds of training that an interruption costs at most."""
_PROGRESS_EVERY = 10.0


def train(
    recipe: Recipe,
    training: TrainingSet,
    validation: TrainingSet | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
    half: bool = False,
    stop: Callable[[], bool] = lambda: False,
    as_it_is: bool = False,
) -> Iterator[TrainingProgress | TrainedNetwork]:
    """Train a network; the last thing yielded is what came of it.

    Every step's slices, augmentation and dropout depend only on the seed and the step, so
    that a run which continues from its checkpoint does what an uninterrupted one would
    have done, bit by bit with the same number of threads.

    Parameters
    ----------
    recipe : Recipe
    training, validation : TrainingSet
        Prepared at the recipe's size, or as they are for a recipe with guises; validation slices are
        always prepared. Without them the weights after the last step are kept.
    device : str
    checkpoint : Path, optional
        Written at once, at every validation and every five minutes; if it exists, the run goes on
        from there. Beside it lies how far the run is, as JSON in ``<checkpoint>.progress``.
    half : bool
        Whether bfloat16 may take over from float32; see `learn.precision`.
    stop : callable
        Asked after every step; once it says so, the checkpoint is written and the run ends there.
    as_it_is : bool
        Take no further step: yield what a checkpoint holds so far.

    Yields
    ------
    TrainingProgress
        After every tenth step and every validation.
    TrainedNetwork
        With the weights that were best; last, unless the run was stopped.

    Raises
    ------
    ModelError
        If the checkpoint is damaged, or belongs to another recipe or other slices, or
        cannot be written.
    """
    run = TrainingRun(recipe, training, validation, device, half)
    if checkpoint is not None and not run.resume(checkpoint):
        run.write(checkpoint)
    if as_it_is:
        run.keep(float("inf"))
        yield run.result()
        return
    sample = Sampler(recipe, training, augmentation(recipe.augmentation, training.images.shape[-1]))
    watched = recipe.selection == "loss"
    started, losses = time.perf_counter(), []
    written = told = started
    while not run.done:
        images, masks = sample(run.step)
        losses.append(run.update(images.to(device), masks.to(device)))
        scores, best, now = None, False, time.perf_counter()
        if validated := run.step % run.validate_every == 0 or run.step in run.ends:
            value = float(run.step)
            if drops(run.average):
                recent = range(max(0, run.step - BATCHES), run.step)
                settle(run.average, (sample(step)[0].to(device) for step in recent))
            if validation is not None:
                scores, loss = validate(run.average, validation, device, run.loss if watched else None)
                known = [scores[name] for name in run.learned if name in scores]
                if watched:
                    value = -loss
                elif known:  # else nothing tells better from worse, and the last weights are kept
                    value = float(np.mean(known))
            best = run.keep(value)
        stopped = stop()
        if checkpoint is not None and (validated or stopped or now - written > CHECKPOINT_EVERY):
            run.write(checkpoint)
            written = now
        if checkpoint is not None and (validated or stopped or now - told > _PROGRESS_EVERY):
            _tell(checkpoint, run, losses[-1])
            told = now
        if stopped and not run.done:
            return
        if validated or run.step % 10 == 0:
            mean = float(np.mean(losses if validated else losses[-10:]))
            yield TrainingProgress(run.step, run.steps, mean, now - started, scores, best)
            losses = [] if validated else losses
    if checkpoint is not None:
        Path(f"{checkpoint}.progress").unlink(missing_ok=True)
    yield run.result()


def _tell(checkpoint: Path, run: TrainingRun, loss: float) -> None:
    """Say how far a run is to whoever looks from outside; a full disk is none of its business."""
    facts = {"step": run.step, "steps": run.steps, "seconds": run.seconds, "loss": loss}
    facts |= {"time": time.time(), "pid": os.getpid()}
    with contextlib.suppress(OSError):
        write_text(Path(f"{checkpoint}.progress"), json.dumps(facts))
