"""Prepared slices through a network, and its probabilities back on the scan's grid: the one forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from napari_covseg.labels import UNION, UNITED, Task
from napari_covseg.models.preparation import Placement
from napari_covseg.networks.blocks import union_logits


def as_input(images: npt.NDArray[np.uint8], device: str | torch.device = "cpu") -> Tensor:
    """Turn prepared slices, (n, size, size), into network input of shape (n, 1, size, size) in [0, 1]."""
    return torch.from_numpy(images).to(device).unsqueeze(1).float().div_(255.0)


def heads(network: nn.Module, inputs: Tensor) -> Mapping[str, Tensor]:
    """Return a network's logits by head, each of shape (n, 1, size, size), or (n, 1) of whole slices.

    Channels last, in which convolutions are fastest on a CPU and on a GPU.
    """
    logits: Mapping[str, Tensor] = network(inputs.contiguous(memory_format=torch.channels_last))
    return logits


def stacked(logits: Mapping[str, Tensor], outputs: Sequence[str]) -> Tensor:
    """Return the logits of outputs side by side, float32 (n, len(outputs), size, size), or (n, len(outputs)).

    The union of ground-glass and consolidation ("lesion") is an output of a network that tells them apart.
    """
    channels = [
        union_logits(*(logits[part] for part in UNITED))
        if name == UNION and name not in logits
        else logits[name]
        for name in outputs
    ]
    return torch.cat(channels, 1).float()


def probabilities(
    network: nn.Module, inputs: Tensor, outputs: Sequence[str], task: Task = "segmentation"
) -> Tensor:
    """Return the probabilities of outputs, float32 (n, len(outputs), size, size), or (n, len(outputs)).

    Those of a network that recognises add up to 1 for each slice; all others stand by themselves.

    Parameters
    ----------
    network : Module
    inputs : Tensor, shape (n, 1, size, size)
        From `as_input`.
    outputs : sequence of str
    task : {"segmentation", "recognition", "manifestations"}
        That of the model's card.
    """
    return to_probabilities(stacked(heads(network, inputs), outputs), task)


def to_probabilities(logits: Tensor, task: Task) -> Tensor:
    """Return the probabilities that logits, (n, outputs, ...), stand for; see `probabilities`."""
    return logits.softmax(1) if task == "recognition" else logits.sigmoid()


def restore(probability: Tensor, placement: Placement, *, fit: Literal["pad", "stretch"] = "pad") -> Tensor:
    """Bring probabilities to the scan's grid; they are 0 outside the part that the network saw.

    Probabilities are resized, never labels: thresholding comes after, so that outlines
    stay smooth at the scan's resolution.

    Parameters
    ----------
    probability : Tensor, shape (n, c, size, size)
    placement : Placement
    fit : {"pad", "stretch"}
        How the part was made square, see `Preparation`.

    Returns
    -------
    Tensor, shape (n, c, y, x)
    """
    side, height, width = placement.side, placement.height, placement.width
    size = (height, width) if fit == "stretch" else (side, side)
    if probability.shape[-2:] != size:
        # channels last, in which it leaves the network, takes four times as long on a CPU
        probability = probability.contiguous()
        probability = F.interpolate(probability, size, mode="bilinear", align_corners=False)
    probability = probability[..., :height, :width]
    if (height, width) == placement.shape:
        return probability
    full = probability.new_zeros((*probability.shape[:2], *placement.shape))
    top, left = placement.top, placement.left
    full[..., top : top + height, left : left + width] = probability
    return full
