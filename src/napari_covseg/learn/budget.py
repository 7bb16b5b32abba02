"""A recipe that fits into a given time: as many steps as the machine at hand can take."""

from __future__ import annotations

import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from napari_covseg.errors import ModelError
from napari_covseg.learn.augment import augmentation
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.sampling import Sampler
from napari_covseg.learn.training_run import TrainingRun, steps_of
from napari_covseg.learn.training_set import TrainingSet
from napari_covseg.learn.validation import validate

_TIMED = 3
_RESERVE = 0.95  # a busy machine, checkpoints


def within(
    seconds: float,
    recipe: Recipe,
    training: TrainingSet,
    validation: TrainingSet | None = None,
    test: TrainingSet | None = None,
    *,
    device: str = "cpu",
    checkpoint: Path | None = None,
) -> Recipe:
    """Return the recipe, shortened if it would take longer than `seconds`.

    A few steps and a few validated slices are timed, with a network that is then thrown away.
    Where there is a checkpoint, the steps that were chosen when it was begun are kept: the run
    ends the same however often it is interrupted.

    Parameters
    ----------
    seconds : float
        For the whole run: steps, ten validations, and the scores at the end.
    recipe : Recipe
    training, validation, test : TrainingSet
    device : str
    checkpoint : Path, optional

    Raises
    ------
    ModelError
        If the time is too short for a step, or the checkpoint is damaged.
    """
    if checkpoint is not None and checkpoint.exists():
        steps = steps_of(checkpoint)
        return recipe if steps == recipe.steps else recipe.shortened(steps or 1)
    started = time.perf_counter()
    step, look = _time_of_step(recipe, training, device), _time_of_slice(recipe, training, device)
    scored = 12 * len(validation or ()) + len(test or ())
    left = _RESERVE * seconds - scored * look - (time.perf_counter() - started)
    if left < step:
        raise ModelError(
            f"{seconds:.0f} s are too short to train and validate {recipe.name}: a step takes {step:.1f} s, "
            f"looking at all slices that are kept out {scored * look:.0f} s. Give it more time."
        )
    steps = int(left / step)
    return recipe if steps >= recipe.length(len(training)) else recipe.shortened(steps)


def _time_of_step(recipe: Recipe, training: TrainingSet, device: str) -> float:
    """Seconds of a step, over all crop sizes of the recipe; the first one of each size is not timed."""
    # all parts at once, which takes longer than any phase
    run = TrainingRun(replace(recipe, phases=()), training, None, device)
    sample = Sampler(recipe, training, augmentation(recipe.augmentation, training.images.shape[-1]))
    shares = [0.0, *(share for share, _ in recipe.stages or ((1.0, 0),))]
    total = 0.0
    for begin, end in pairwise(shares):
        first = int(begin * run.steps)
        for step in range(first, first + 1 + _TIMED):
            started = time.perf_counter()
            images, masks = sample(step)
            run.update(images.to(device), masks.to(device))
            if step > first:
                total += (end - begin) * (time.perf_counter() - started) / _TIMED
    return total


def _time_of_slice(recipe: Recipe, training: TrainingSet, device: str) -> float:
    """Seconds to validate one slice."""
    run = TrainingRun(recipe, training, None, device)
    few = replace(
        training, images=training.images[:8], masks=training.masks[:8], patients=training.patients[:8]
    )
    validate(run.average, few, device)
    started = time.perf_counter()
    validate(run.average, few, device)
    return (time.perf_counter() - started) / len(few)
