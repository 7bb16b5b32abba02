"""Grad-CAM: where in a slice a network has seen what it names."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from napari_covseg.models.forward import heads, restore, stacked
from napari_covseg.models.preparation import Placement, Preparation, reorient, reorient_back
from napari_covseg.networks.classifier import Classifier
from napari_covseg.recognise.answers import heat_grid
from napari_covseg.scans.appearance import Appearance


def grad_cam(network: Classifier, inputs: Tensor, outputs: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return logits and, for each of them, where in the slices it comes from.

    R. R. Selvaraju et al.: Grad-CAM, ICCV 2017, without the mean of the gradient over the places
    (R. L. Draelos, L. Carin: HiResCAM, 2020): the same where a network takes the mean of its last maps, and
    true to the network where it does not. Only what follows the layer is differentiated.

    Parameters
    ----------
    network : Classifier
        In evaluation mode; may be used by other threads meanwhile.
    inputs : Tensor, shape (n, 1, size, size)
    outputs : sequence of str

    Returns
    -------
    logits : Tensor, shape (n, len(outputs))
    maps : Tensor, shape (n, len(outputs), h, w)
        On the grid of the network's `heat_map_layer`; 0 to 1, and 0 everywhere where nothing speaks for it.
    """
    mine, seen = threading.get_ident(), list[Tensor]()

    def keep(_: nn.Module, __: Any, values: Tensor) -> Tensor | None:
        if threading.get_ident() != mine:
            return None
        torch.set_grad_enabled(True)  # from here on; `no_grad` ends it with the pass
        seen.append(values.detach().requires_grad_())
        return seen[0].clone()  # what follows may write into its input

    hook = network.get_submodule(network.heat_map_layer).register_forward_hook(keep)
    try:
        with torch.no_grad():
            logits = stacked(heads(network, inputs), outputs)
    finally:
        hook.remove()
    (values,) = seen
    maps = []
    for channel in range(len(outputs)):
        (gradient,) = torch.autograd.grad(logits[:, channel].sum(), values, retain_graph=True)
        maps.append((gradient * values.detach()).sum(1).clamp(min=0))
    found = torch.stack(maps, 1)
    return logits.detach(), found / found.amax((2, 3), keepdim=True).clamp(min=1e-12)


def on_slice(
    maps: Tensor, shape: tuple[int, int], appearance: Appearance, preparation: Preparation
) -> npt.NDArray[np.uint8]:
    """Bring maps of one slice to where they lie on it as it was read.

    Parameters
    ----------
    maps : Tensor, shape (outputs, h, w)
        0 to 1, of the whole slice as it was prepared.
    shape : tuple of int
        (y, x) of the slice.
    appearance : Appearance
    preparation : Preparation

    Returns
    -------
    ndarray of uint8, shape (outputs, *heat_grid(shape))
    """
    turned = replace(appearance, inverted=False)
    whole = Placement.whole(reorient(np.zeros(shape, np.uint8), turned, around=0).shape)
    high, wide = heat_grid(shape)
    found = np.empty((len(maps), high, wide), np.uint8)
    for number, one in enumerate(maps.cpu()):  # one by one: a detector has millions of pixels
        lying = reorient_back(restore(one[None, None], whole, fit=preparation.fit)[0, 0].numpy(), turned)
        small = cv2.resize(lying, (wide, high), interpolation=cv2.INTER_AREA)
        found[number] = np.rint(255 * np.clip(small, 0, 1))
    return found
