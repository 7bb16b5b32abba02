"""Which slices a step sees: they depend only on the seed and the step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from napari_covseg.learn.augment import Augment, Guises
from napari_covseg.learn.recipe import Recipe
from napari_covseg.learn.slices import UNKNOWN, LabelledSlices
from napari_covseg.models.forward import as_input


class Sampler:
    """Draws the batches of a run.

    Parameters
    ----------
    recipe : Recipe
    training : LabelledSlices
    augment : callable
        From `learn.augment`; slices that are not prepared get guises instead, see `learn.augment`.
    """

    def __init__(self, recipe: Recipe, training: LabelledSlices, augment: Augment) -> None:
        self._recipe, self._training, self._augment = recipe, training, augment
        self._guises = Guises()
        self._weights = sampling_weights(recipe, training)
        self._steps = recipe.length(len(training))

    def __call__(self, step: int) -> tuple[Tensor, Tensor]:
        """Return the augmented images, (n, 1, h, w) in [0, 1], and masks, (n, c, h, w), of a step."""
        recipe, training = self._recipe, self._training
        random = np.random.default_rng([recipe.seed, step])
        if recipe.sampling == "weighted":
            rows = random.choice(len(training), recipe.batch, p=self._weights)
        else:
            epoch, at = divmod(step, recipe.epoch(len(training)))
            order = np.random.default_rng([recipe.seed, epoch]).permutation(len(training))
            rows = order[at * recipe.batch : (at + 1) * recipe.batch]
        if training.kinds is not None:
            return self._guised(rows, self._crop(step), random)
        reach = np.where(random.random(len(rows)) < recipe.slab, random.integers(1, 4, len(rows)), 0)
        slabs = [slab(training, row, thick) for row, thick in zip(rows, reach, strict=True)]
        images, masks = (np.stack(part) for part in zip(*slabs, strict=True))
        return self._augment(as_input(images), torch.from_numpy(masks).float(), self._crop(step), random)

    def _guised(
        self, rows: npt.NDArray[np.intp], size: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        training = self._training
        assert training.kinds is not None
        guised = [
            self._guises(
                training.images[row], str(training.kinds[row]), np.asarray(training.masks[row], np.uint8),
                size, random, training.outputs,
            )
            for row in rows
        ]  # fmt: skip
        images, masks = (np.stack(part) for part in zip(*guised, strict=True))
        return torch.from_numpy(images).unsqueeze(1), torch.from_numpy(masks)

    def _crop(self, step: int) -> int:
        stages = self._recipe.stages or ((1.0, self._training.images.shape[-1]),)
        return next((size for share, size in stages if step < share * self._steps), stages[-1][1])


def sampling_weights(recipe: Recipe, training: LabelledSlices) -> npt.NDArray[np.float64]:
    """Probability of each slice: patients by `balance`, sources without lungs by `negatives`.

    A patient in two sources counts in each.
    """
    sources = training.sources if training.sources is not None else np.full(len(training), "")
    both, inverse, counts = np.unique(
        np.char.add(np.char.add(sources.astype(str), "\n"), training.patients.astype(str)),
        return_inverse=True, return_counts=True,
    )  # fmt: skip
    names = [tuple(str(name).split("\n")) for name in both]
    given = [training.weights.get(source, training.weights.get(name, 1.0)) for source, name in names]
    share = counts**recipe.balance * given
    negative = np.isin([name for _, name in names], sorted(training.negatives))
    if negative.any() and not negative.all():
        share[negative] *= recipe.negatives / share[negative].sum()
        share[~negative] *= (1 - recipe.negatives) / share[~negative].sum()
    weights = (share / counts)[inverse]
    return np.asarray(weights / weights.sum(), np.float64)


def slab(training: LabelledSlices, row: int, reach: int) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Average a slice with its neighbours, as a thicker slice would have shown them.

    Parameters
    ----------
    training : LabelledSlices
        Slices of a patient in the order of the scan.
    row : int
        The middle slice.
    reach : int
        Neighbours on either side, of the same patient only; 0 gives the slice itself.

    Returns
    -------
    image : ndarray of uint8, shape (size, size)
    masks : ndarray of uint8 or bool, shape (outputs, size, size)
        What most of the slices show; unknown where it is in any.
    """
    if reach == 0:
        return training.images[row], training.masks[row]
    near = slice(max(0, row - reach), row + reach + 1)
    same = training.patients[near] == training.patients[row]
    if training.sources is not None:
        same &= training.sources[near] == training.sources[row]
    images, masks = training.images[near][same], training.masks[near][same]
    unknown = (masks == UNKNOWN).any(0)
    most = np.where(unknown, UNKNOWN, (masks == 1).mean(0) > 0.5).astype(np.uint8)
    return images.mean(0).round().astype(np.uint8), most
