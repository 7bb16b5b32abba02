"""A slice again, with a person's scribbles as hints: they spread to what is near and looks alike."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_covseg.errors import ModelError
from napari_covseg.labels import LESIONS, UNION, UNITED, joins
from napari_covseg.models.file import Model
from napari_covseg.models.forward import as_input, heads
from napari_covseg.models.preparation import Placement
from napari_covseg.predict.ensemble import Adjust

Mask = npt.NDArray[np.bool_]
Values = npt.NDArray[np.float32]

_WINDOW = 2.5
"""In units of the reach: farther from a scribble nothing changes."""


@dataclass(frozen=True)
class Hints:
    """How far a scribble speaks for what is around it; `benchmarks/refine.py` measures the settings.

    Attributes
    ----------
    strength : float
        What it adds to the log odds beside it; what the model is sure of needs more.
    reach : float
        Standard deviation in pixels of a prepared slice.
    likeness : float
        Standard deviation of the features, each scaled to 1 over the slice: what looks
        otherwise to the model is not touched.
    points : int
        Pixels of a scribble that are looked at.
    """

    strength: float = 4.0
    reach: float = 12.0
    likeness: float = 1.75
    points: int = 60


def refine(
    model: Model,
    image: npt.NDArray[np.uint8],
    probability: Values,
    positive: Mask,
    negative: Mask,
    hints: Hints | None = None,
) -> Values:
    """Spread a person's scribbles to what is near them and looks alike to the model.

    What looks alike is told by the features that the model's last layer sees. The model
    does not change.

    Parameters
    ----------
    model : Model
    image : ndarray of uint8, shape (size, size)
        A prepared slice.
    probability : ndarray of float32, shape (size, size)
        What the model gives for the output that the scribbles are about.
    positive, negative : ndarray of bool, shape (size, size)
        Where the person says that it is, and is not.
    hints : Hints, optional

    Returns
    -------
    ndarray of float32, shape (size, size)
        1 and 0 under the scribbles.
    """
    hints = hints or Hints()
    if not (positive.any() or negative.any()):
        return probability.copy()
    features = _last_features(model, image)
    certain = np.clip(probability, 0.01, 0.99)
    odds = np.log(certain / (1 - certain))
    for mask, sign in ((positive, 1), (negative, -1)):
        if mask.any():
            box, near = _nearness(mask, features, hints)
            odds[box] += sign * hints.strength * near
    out = np.asarray(1 / (1 + np.exp(-odds)), np.float32)
    out[positive], out[negative] = 1.0, 0.0
    return out


def refine_with(output: str, positive: Mask, negative: Mask) -> Adjust:
    """Return what spreads scribbles in the probabilities of a single prepared slice; see `ensemble.infer`.

    Parameters
    ----------
    output : str
        What the scribbles are about.
    positive, negative : ndarray of bool, shape (y, x)
        On the slice as the model is shown it: upright, whole.
    """

    def adjust(model: Model, images: list[npt.NDArray[np.uint8]], probability: Tensor) -> Tensor:
        channel, size = model.card.outputs.index(output), model.preparation.size
        before = probability[0, channel].float().cpu().numpy()
        after = refine(model, images[0], before, _shrunk(positive, size), _shrunk(negative, size))
        probability = probability.clone()
        probability[0, channel] = torch.from_numpy(after).to(probability)
        return probability

    return adjust


def output_of(value: int, model: Model) -> str:
    """Return the output that a lesion label belongs to, as in fine-tuning.

    Raises
    ------
    ModelError
        If the model has none.
    """
    for label in LESIONS:
        if label.value == value:
            if label.name in model.card.outputs:
                return label.name
            if label.inside_lungs and UNION in model.card.outputs:
                return UNION
            if label.name == UNION and joins(model.card.outputs):
                return UNITED[0]  # whichever of them: both count for the union
    raise ModelError(f"The model {model.card.id} does not know label {value}: choose one of its own labels.")


def _shrunk(mask: Mask, size: int) -> Mask:
    """Shrink scribbles to the size of a prepared slice without losing thin ones."""
    side = max(mask.shape)
    wide = max(1, int(np.ceil(side / size)))
    if wide > 1:
        mask = cv2.dilate(mask.astype(np.uint8), np.ones((wide, wide), np.uint8)) > 0
    placement = Placement.whole(mask.shape)
    square = placement.cut(mask.astype(np.float32))
    interpolation = cv2.INTER_AREA if side > size else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(square, (size, size), interpolation=interpolation) > 0.5)


def _nearness(mask: Mask, features: Values, hints: Hints) -> tuple[tuple[slice, slice], Values]:
    """Return a window around a scribble, and how near each of its pixels is to the scribble, 0 to 1."""
    points = np.argwhere(mask)
    points = points[:: -(-len(points) // hints.points)]
    margin = int(_WINDOW * hints.reach)
    first, last = np.maximum(points.min(0) - margin, 0), points.max(0) + margin + 1
    box = slice(first[0], last[0]), slice(first[1], last[1])
    here, there = features[box], features[points[:, 0], points[:, 1]]
    alike = np.square(here).sum(-1)[..., None] + np.square(there).sum(-1) - 2 * here @ there.T
    rows, columns = np.mgrid[first[0] : first[0] + here.shape[0], first[1] : first[1] + here.shape[1]]
    apart = np.square(rows[..., None] - points[:, 0]) + np.square(columns[..., None] - points[:, 1])
    unlike = np.maximum(alike, 0) / (2 * hints.likeness**2) + apart / (2 * hints.reach**2)
    return box, np.asarray(np.exp(-unlike.min(-1)), np.float32)


@torch.inference_mode()
def _last_features(model: Model, image: npt.NDArray[np.uint8]) -> Values:
    """Return what the last convolution sees, (size, size, features), each of mean 0 and spread 1."""
    last = [module for module in model.network.modules() if isinstance(module, nn.Conv2d)][-1]
    seen: list[Tensor] = []
    here = threading.get_ident()

    def see(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if threading.get_ident() == here:  # a prediction may use the same network meanwhile
            seen.append(inputs[0])

    hook = last.register_forward_pre_hook(see)
    try:
        heads(model.network, as_input(image[None], model.device))
    finally:
        hook.remove()
    features = seen[-1][0].permute(1, 2, 0)
    features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-3)
    return np.asarray(features.cpu().numpy(), np.float32)
