"""What a model says of prepared slices, and how right it is."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from napari_covseg.learn.labelled import LabelledSlices
from napari_covseg.metrics import dice
from napari_covseg.models import forward
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input


@torch.inference_mode()
def probabilities(model: Model, images: npt.NDArray[np.uint8], batch: int = 4) -> npt.NDArray[np.uint8]:
    """Return what a model says of prepared slices, (n, size, size): uint8 (n, outputs, size, size)."""
    rows = []
    for start in range(0, len(images), batch):
        inputs = as_input(images[start : start + batch], model.device)
        said = forward.probabilities(model.network, inputs, model.card.outputs)
        rows.append(said.mul_(255).round_().byte().cpu().numpy())
    empty = np.zeros((0, len(model.card.outputs), *images.shape[1:]), np.uint8)
    return np.concatenate([empty, *rows])


def score(model: Model, slices: LabelledSlices) -> dict[str, float]:
    """Dice per output at the card's thresholds, pooled over the slices; only of outputs that count there."""
    said = probabilities(model, slices.images)
    truth = slices.targets >= 128 if slices.targets.dtype == np.uint8 else slices.targets.astype(np.bool_)
    scores = {}
    for channel, name in enumerate(model.card.outputs):
        predicted = said[:, channel] >= model.card.thresholds[name] * 255
        there = truth[:, channel]
        if slices.valid is not None:
            valid = slices.valid[:, channel]
            if not valid.any():
                continue
            predicted, there = predicted & valid, there & valid
        scores[name] = float(dice(predicted, there))
    return scores
