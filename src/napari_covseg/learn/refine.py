"""A slice again, with a person's scribbles as hints: answered in a moment."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.models.file import Model

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class RefineBudget:
    """How much is spent on a slice.

    Attributes
    ----------
    steps : int
        Gradient steps; each costs a few milliseconds on a CPU.
    rate : float
        Adam's learning rate.
    trust : float
        Weight of what the model said elsewhere, against that of the scribbles.
    reach : float
        Pixels over which a scribble speaks for its neighbourhood.
    """

    steps: int = 30
    rate: float = 0.1
    trust: float = 1.0
    reach: float = 10.0


def refine(
    model: Model,
    image: npt.NDArray[np.uint8],
    probability: npt.NDArray[np.float32],
    positive: Mask,
    negative: Mask,
    budget: RefineBudget | None = None,
) -> npt.NDArray[np.float32]:
    """Fit the last layer to a person's scribbles on one slice, and to the model everywhere else.

    What is fitted is an affine function of the features that the last layer sees and of the
    nearness to the scribbles, which begins as the model's own; the model does not change.

    Parameters
    ----------
    model : Model
    image : ndarray of uint8, shape (size, size)
        A prepared slice.
    probability : ndarray of float32, shape (size, size)
        What is said so far of the output that the scribbles are about.
    positive, negative : ndarray of bool, shape (size, size)
        Where the person says that it is, and is not.
    budget : RefineBudget, optional

    Returns
    -------
    ndarray of float32, shape (size, size)
        1 and 0 under the scribbles.
    """
    budget = budget or RefineBudget()
    if not (positive.any() or negative.any()):
        return probability.copy()
    features = _last_features(model, image)
    said = torch.from_numpy(probability).to(model.device).clamp(0.01, 0.99).reshape(-1)
    near = np.stack([_nearness(mask, budget.reach) for mask in (positive, negative)], -1)
    features = torch.cat([features, torch.from_numpy(near).to(model.device).reshape(-1, 2)], 1)
    # what was said may differ from what the model says: only the change is fitted
    start = said.logit()
    change = torch.zeros(features.shape[1] + 1, device=model.device, requires_grad=True)
    scale = features.std(0).clamp_min(1e-3)
    features = features / scale
    hints = torch.from_numpy((positive | negative).reshape(-1)).to(model.device)
    wanted = torch.from_numpy(positive.reshape(-1)).to(model.device)[hints].float()
    far = torch.from_numpy(1 - near.max(-1).reshape(-1)).to(model.device)
    optimiser = torch.optim.Adam([change], budget.rate)
    for _ in range(budget.steps):
        logits = start + features @ change[:-1] + change[-1]
        drawn = F.binary_cross_entropy_with_logits(logits[hints], wanted)
        kept = F.binary_cross_entropy_with_logits(logits, said, far)
        loss = drawn + budget.trust * kept
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    with torch.no_grad():
        fitted = (start + features @ change[:-1] + change[-1]).sigmoid()
    out = np.asarray(fitted.reshape(probability.shape).cpu().numpy(), np.float32)
    out[positive], out[negative] = 1.0, 0.0
    return out


def _last_features(model: Model, image: npt.NDArray[np.uint8]) -> Tensor:
    """Return what the last convolution sees, (pixels, features)."""
    last = [module for module in model.network.modules() if isinstance(module, nn.Conv2d)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            inputs = torch.from_numpy(image).to(model.device)[None, None].float().div_(255)
            model.network(inputs.contiguous(memory_format=torch.channels_last))
    finally:
        hook.remove()
    return seen[-1][0].permute(1, 2, 0).reshape(-1, last.in_channels).clone()


def _nearness(mask: Mask, reach: float) -> npt.NDArray[np.float32]:
    """Return 1 in a mask, falling to 0 around it."""
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, 5)
    return np.asarray(np.exp(-np.square(np.asarray(distance) / reach)), np.float32)
