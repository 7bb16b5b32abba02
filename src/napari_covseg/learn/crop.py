"""Slices cropped to the lungs that a model has found, as they will be when a new scan is labelled."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError
from napari_covseg.learn.score import probabilities
from napari_covseg.learn.training_set import TrainingSet, prepare, shrink
from napari_covseg.models.file import Model
from napari_covseg.models.preparation import Preparation

_SPECK = 0.002


def crop_to_lungs(data: TrainingSet, model: Model, preparation: Preparation) -> TrainingSet:
    """Return the slices cropped to the lungs and resized, with their masks.

    The lungs are the model's, never those of the truth: nobody has drawn them when a scan is
    labelled. Slices on which it finds none stay whole.

    Parameters
    ----------
    data : TrainingSet
    model : Model
        With an output "lungs"; it must not have seen the patients that test.
    preparation : Preparation
        That of the network to train; its margin is in pixels of these slices.

    Raises
    ------
    ModelError
        If the model finds no lungs.
    """
    found = lungs_of(model, data)
    images = np.zeros((len(data), preparation.size, preparation.size), np.uint8)
    masks = np.zeros((len(data), data.masks.shape[1], *images.shape[1:]), data.masks.dtype)
    kinds = data.kinds if data.kinds is not None else np.full(len(data), "equalised")
    for row, (image, lungs, kind) in enumerate(zip(data.images, found, kinds, strict=True)):
        placement = preparation.place(image.shape, lungs)
        images[row] = prepare(preparation, image, str(kind), placement)
        for channel, mask in enumerate(data.masks[row]):
            masks[row, channel] = shrink(placement.part(mask) if placement else mask, preparation.size)
    return replace(data, images=images, masks=masks, kinds=None)


def lungs_of(model: Model, data: TrainingSet) -> npt.NDArray[np.uint8]:
    """Return where a model finds lungs, (n, y, x), without specks: 1 or 0."""
    if "lungs" not in model.card.outputs:
        raise ModelError(f"The model {model.card.id} finds no lungs: choose one that does.")
    channel, threshold = model.card.outputs.index("lungs"), 255 * model.card.thresholds["lungs"]
    said = probabilities(model, data.prepared(model.preparation).images)[:, channel]
    found = np.zeros(data.images.shape, np.uint8)
    for row, probability in enumerate(said):
        sure = cv2.resize(probability, data.images.shape[:0:-1], interpolation=cv2.INTER_LINEAR) >= threshold
        _, parts, stats, _ = cv2.connectedComponentsWithStats(sure.astype(np.uint8))
        large = stats[:, cv2.CC_STAT_AREA] >= _SPECK * sure.size
        large[0] = False  # the background
        found[row] = large[parts]
    return found
