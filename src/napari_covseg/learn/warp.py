"""Crops of labelled slices, turned, stretched and bent: fast enough for a few seconds of training."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.learn.labelled import LabelledSlices
from napari_covseg.models.file import Model


@dataclass(frozen=True)
class Warp:
    """How far a slice may be changed.

    Attributes
    ----------
    rotation : float
        Radians to either side.
    zoom : tuple of float
        Range of the scale.
    shift : float
        Of the crop's middle, in its widths, to either side.
    bend : float
        Standard deviation of the elastic displacement, in pixels.
    flip : float
        Probability to mirror left and right.
    gamma, gain : float
        Range of the contrast's exponent (in its logarithm) and factor, to either side.
    noise : float
        Standard deviation, of intensities in [0, 1].
    """

    rotation: float = 0.25
    zoom: tuple[float, float] = (0.8, 1.25)
    shift: float = 0.1
    bend: float = 1.5
    flip: float = 0.5
    gamma: float = 0.3
    gain: float = 0.1
    noise: float = 0.02


class Crops:
    """Labelled slices as tensors, from which crops are drawn."""

    def __init__(self, slices: LabelledSlices, model: Model) -> None:
        self.images = torch.from_numpy(slices.images).unsqueeze(1).float().div_(255).to(model.device)
        soft = slices.targets.dtype == np.uint8
        targets = torch.from_numpy(np.ascontiguousarray(slices.targets)).float().div_(255.0 if soft else 1.0)
        valid = torch.ones_like(targets) if slices.valid is None else torch.from_numpy(slices.valid).float()
        self.targets = torch.cat([targets, valid], 1).to(model.device)
        counted = slices.targets >= (128 if soft else 1)
        if slices.valid is not None:
            counted = counted & slices.valid
        self.middles = torch.tensor([_middle(one) for one in counted], dtype=torch.float32)

    def sample(
        self, number: int, size: int, how: Warp | None, random: np.random.Generator
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return images, targets and weights of random crops."""
        count, outputs = len(self.images), self.targets.shape[1] // 2
        # every slice once before any comes again
        rows = np.concatenate([random.permutation(count) for _ in range(-(-number // count))])[:number]
        size = min(size, self.images.shape[-1])
        images, both = warp(self.images[rows], self.targets[rows], self.middles[rows], size, how, random)
        return images, both[:, :outputs], both[:, outputs:]


def warp(
    images: Tensor,
    targets: Tensor,
    middles: Tensor,
    size: int,
    how: Warp | None,
    random: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """Return random crops around the middles; the same generator gives the same crops.

    Parameters
    ----------
    images : Tensor, shape (n, 1, h, w)
        In [0, 1].
    targets : Tensor, shape (n, c, h, w)
        In [0, 1]; interpolated, so that they come out soft at their edges.
    middles : Tensor, shape (n, 2)
        (y, x) of each crop's middle in pixels.
    size : int
        Height and width of a crop.
    how : Warp, optional
        None only crops.
    random : numpy Generator
    """
    grid = _grid(len(images), (images.shape[-2], images.shape[-1]), middles, size, how, random)
    grid = grid.to(images.device)
    both = F.grid_sample(torch.cat([images, targets], 1), grid, padding_mode="zeros", align_corners=False)
    crops, masks = both[:, :1], both[:, 1:]
    if how is not None:
        crops = _colour(crops, how, random)
    return crops.contiguous(memory_format=torch.channels_last), masks


def _grid(
    count: int,
    shape: tuple[int, int],
    middles: Tensor,
    size: int,
    how: Warp | None,
    random: np.random.Generator,
) -> Tensor:
    """Return where each pixel of the crops lies in its slice, (n, size, size, 2), in [-1, 1]."""
    height, width = shape
    turned = np.tile(np.eye(2), (count, 1, 1))
    moved = np.zeros((count, 2))
    if how is not None:
        angle = random.uniform(-how.rotation, how.rotation, count)
        zoom = np.exp(random.uniform(math.log(how.zoom[0]), math.log(how.zoom[1]), count))
        side = np.where(random.random(count) < how.flip, -1.0, 1.0)
        turned[:, 0] = np.stack([np.cos(angle) * side, -np.sin(angle)], 1) / zoom[:, None]
        turned[:, 1] = np.stack([np.sin(angle) * side, np.cos(angle)], 1) / zoom[:, None]
        moved = random.uniform(-how.shift, how.shift, (count, 2)) * size
    steps = torch.arange(size, dtype=torch.float32) - (size - 1) / 2
    yy, xx = torch.meshgrid(steps, steps, indexing="ij")
    flat = torch.stack([xx, yy]).reshape(2, -1)
    where = torch.from_numpy(turned).float() @ flat
    where = where + (middles.flip(1) + torch.from_numpy(moved).float())[:, :, None]
    where = where.reshape(count, 2, size, size)
    if how is not None and how.bend > 0:
        coarse = random.normal(0, how.bend, (count, 2, 6, 6)).astype(np.float32)
        where = where + F.interpolate(
            torch.from_numpy(coarse), (size, size), mode="bicubic", align_corners=True
        )
    scale = torch.tensor([2 / width, 2 / height]).reshape(1, 2, 1, 1)
    return ((where + 0.5) * scale - 1).permute(0, 2, 3, 1)


def _colour(images: Tensor, how: Warp, random: np.random.Generator) -> Tensor:
    count = len(images)
    gamma = np.exp(random.uniform(-how.gamma, how.gamma, (count, 1, 1, 1)))
    gain = random.uniform(1 - how.gain, 1 + how.gain, (count, 1, 1, 1))
    noise = random.standard_normal(tuple(images.shape), np.float32) * how.noise
    to = images.device
    changed = images.clamp(0, 1) ** torch.from_numpy(gamma).float().to(to)
    return (changed * torch.from_numpy(gain).float().to(to) + torch.from_numpy(noise).to(to)).clamp_(0, 1)


def _middle(target: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Middle of what is labelled in any output, (y, x) in pixels; of the slice if nothing is."""
    labelled = np.any(target, axis=0)
    middle = []
    for axis in (1, 0):
        there = np.flatnonzero(np.any(labelled, axis=axis))
        size = labelled.shape[1 - axis]
        middle.append((there[0] + there[-1]) / 2 if len(there) else (size - 1) / 2)
    return float(middle[0]), float(middle[1])
