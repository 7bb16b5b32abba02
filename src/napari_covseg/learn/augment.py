"""Random changes that a scan could have had: position, size, orientation, contrast, noise, blur.

Three kinds: what the recipes of the papers name, on prepared slices; guises, in which one slice comes from
different sites; and warped crops, which are fast enough for a few seconds of fine-tuning.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from napari_covseg.learn.slices import UNKNOWN

Augment = Callable[[Tensor, Tensor, int, np.random.Generator], tuple[Tensor, Tensor]]
"""Images (n, 1, h, w), masks (n, c, h, w), crop in pixels, chance -> both, changed alike."""


def augmentation(name: str, size: int) -> Augment:
    """Return the augmentation that a recipe names, for slices of `size` pixels."""
    if name == "covseg":
        return Augmentation(size)
    return {
        "none": no_augmentation,
        "guises": no_augmentation,
        "flips-zoom": flips_and_zoom,
        "affine": turn_and_shear,
    }[name]


class Augmentation:
    """Augment a batch with MONAI's transforms; the same generator gives the same batch.

    Both flips are on: the sources lie on either side, and the lungs are labelled as one
    (left and right are told apart after the network).

    Parameters
    ----------
    size : int
        Height and width of a whole slice, of which shifts are a share.
    """

    def __init__(self, size: int = 256) -> None:
        from monai.transforms import (  # type: ignore[attr-defined]  # not above: a second, for one recipe
            Compose,
            RandAdjustContrastd,
            RandAffined,
            RandFlipd,
            RandGaussianNoised,
            RandGaussianSmoothd,
            RandScaleIntensityd,
        )

        both = ["image", "masks"]
        shift = 24 * size / 256
        self._affine = RandAffined(
            both, prob=1.0, rotate_range=0.3, shear_range=0.1, translate_range=shift,
            scale_range=(-0.3, 0.35), mode=["bilinear", "nearest"], padding_mode="zeros",
        )  # fmt: skip
        self._rest = Compose(
            [
                RandFlipd(both, prob=0.5, spatial_axis=0),
                RandFlipd(both, prob=0.5, spatial_axis=1),
                RandAdjustContrastd("image", prob=0.5, gamma=(0.65, 1.5)),
                RandScaleIntensityd("image", prob=0.4, factors=0.2),
                RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0)),
                RandGaussianNoised("image", prob=0.3, std=0.05),
            ]
        )

    def __call__(
        self, images: Tensor, masks: Tensor, size: int, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return crops of `size` pixels.

        Parameters
        ----------
        images : Tensor, shape (n, 1, h, w)
            In [0, 1].
        masks : Tensor, shape (n, c, h, w)
            Of 0 and 1.
        size : int
        random : numpy Generator
        """
        seed = int(random.integers(2**31))
        self._affine.set_random_state(seed)
        self._rest.set_random_state(seed + 1)
        rows, both = [], ("image", "masks")
        for image, mask in zip(images, masks, strict=True):
            self._affine.rand_affine.spatial_size = (size, size)
            row = self._rest(self._affine({"image": image, "masks": mask}))
            # plain tensors: MONAI's own would carry their bookkeeping through the network
            rows.append([row[name].as_tensor() for name in both])
        augmented = torch.stack([image for image, _ in rows]).clamp_(0, 1)
        return augmented.contiguous(memory_format=torch.channels_last), torch.stack(
            [mask for _, mask in rows]
        )


def no_augmentation(
    images: Tensor, masks: Tensor, size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Return the middle of the slices, `size` pixels wide; see `Augmentation` for the parameters."""
    top, left = ((side - size) // 2 for side in images.shape[-2:])
    images, masks = (part[..., top : top + size, left : left + size] for part in (images, masks))
    return images.contiguous(memory_format=torch.channels_last), masks


def flips_and_zoom(
    images: Tensor, masks: Tensor, size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Mirror each slice in either axis half of the time; enlarge every other one by up to 1.3.

    Amer 2021, section 4.1: "random horizontal and vertical flip, random zoom"; the probabilities
    and the range are ours. Parameters as for `Augmentation`.
    """
    count = len(images)
    zoom = np.where(random.random(count) < 0.5, random.uniform(1.0, 1.3, count), 1.0)
    sides = np.where(random.random((count, 2)) < 0.5, -1.0, 1.0)
    return _transform(images, masks, size, np.eye(2) * (sides / zoom[:, None])[:, None], np.zeros((count, 2)))


def turn_and_shear(
    images: Tensor, masks: Tensor, size: int, random: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Turn each slice by up to 15 degrees, shear it by 10, scale it by 0.9 to 1.1, shift it by a tenth.

    El-bana 2020, "Preprocessing and Data Augmentation": "rotation, horizontal and vertical
    translations, zooming and shearing"; the ranges are ours. Parameters as for `Augmentation`.
    """
    count = len(images)
    turn, shear = np.radians(random.uniform(-15, 15, count)), np.radians(random.uniform(-10, 10, count))
    scale, shift = random.uniform(0.9, 1.1, count), random.uniform(-0.1, 0.1, (count, 2))
    # columns: where x and y of the result come from
    along = np.stack([np.cos(turn), np.sin(turn)], 1)
    across = np.stack([-np.sin(turn + shear), np.cos(turn + shear)], 1)
    return _transform(images, masks, size, np.stack([along, across], 2) / scale[:, None, None], 2 * shift)


def _transform(
    images: Tensor,
    masks: Tensor,
    size: int,
    matrices: npt.NDArray[np.float64],
    shifts: npt.NDArray[np.float64],
) -> tuple[Tensor, Tensor]:
    """Return the middle `size` pixels of transformed slices.

    Parameters
    ----------
    images, masks, size
        As for `Augmentation`; the slices are square.
    matrices : ndarray, shape (n, 2, 2)
        From an (x, y) of the result to that of the slice, from the middle of both.
    shifts : ndarray, shape (n, 2)
        Added to it, in half slices.
    """
    theta = np.concatenate([matrices * (size / images.shape[-1]), shifts[:, :, None]], 2)
    grid = F.affine_grid(torch.from_numpy(theta).float(), [len(images), 1, size, size], align_corners=False)
    moved = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    labelled = F.grid_sample(masks, grid, mode="nearest", padding_mode="border", align_corners=False)
    return moved.contiguous(memory_format=torch.channels_last), labelled


# Guises: whoever exports a slice chooses a window, equalises or not, crops, turns, inverts, compresses. A
# network that has met all of it need not be told which it is.

Slice = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

LUNG_WINDOWS = ((-1350.0, 150.0), (-1000.0, 400.0), (-1200.0, 200.0))
"""HU that sites export lungs in, from black to white."""
MEDIASTINAL_WINDOW = (-160.0, 240.0)
WHOLE_RANGE = (-1024.0, 1500.0)


@dataclass(frozen=True)
class Guises:
    """Chances and ranges; the defaults are what the shipped model is taught with.

    Attributes
    ----------
    mediastinal, whole : float
        Share of HU slices in a mediastinal window, and scaled by their own range; the others
        come in a lung window. Ground-glass cannot be seen in a mediastinal window, so that what is
        labelled inside the lungs is unknown there.
    equalise : float
        Share that is equalised by CLAHE with a ``clipLimit`` of 1 to 8; of slices that already are, a
        tenth of it.
    invert, quarter, mirror : float
        Share that is inverted, turned by quarters, mirrored.
    crop : float
        Share that is cropped to the lungs, with a margin of up to a third, where they are known.
    zoom, stretch, turn, shift : float
        Largest factor either way, of both sides and of one against the other; degrees; share of a side.
    blur, noise, jpeg : float
        Share that is blurred, gets noise, goes through a JPEG of quality 30 to 95.
    gamma : float
        Largest exponent either way.
    """

    mediastinal: float = 0.06
    whole: float = 0.2
    equalise: float = 0.5
    invert: float = 0.05
    quarter: float = 0.15
    mirror: float = 0.3
    crop: float = 0.25
    zoom: float = 1.35
    stretch: float = 1.25
    turn: float = 15.0
    shift: float = 0.1
    blur: float = 0.2
    noise: float = 0.3
    jpeg: float = 0.3
    gamma: float = 1.5

    def __call__(
        self,
        values: npt.NDArray[np.generic],
        kind: str,
        masks: Mask,
        size: int,
        random: np.random.Generator,
        outputs: tuple[str, ...],
    ) -> tuple[Slice, Mask]:
        """Put a guise on a slice.

        Parameters
        ----------
        values : ndarray, shape (side, side)
            HU, or grey from 0 to 255.
        kind : {"HU", "grey", "equalised"}
        masks : ndarray of uint8, shape (c, side, side)
            See `learn.slices.LabelledSlices.masks`.
        size : int
            Height and width of what comes out.
        random : numpy Generator
        outputs : tuple of str
            The channels of the masks.

        Returns
        -------
        image : ndarray of float32, shape (size, size)
            In [0, 1].
        masks : ndarray of uint8, shape (c, size, size)
        """
        image, hidden = self._window(values.astype(np.float32), kind, random)
        if random.random() < self.equalise * (0.1 if kind == "equalised" else 1.0):
            image = equalised(image, float(random.uniform(1, 8)))
        lungs = masks[outputs.index("lungs")] if "lungs" in outputs else None
        matrix = self._place(image.shape[0], lungs, size, random)
        turned = cv2.warpAffine(
            image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT,
            borderValue=float(image.min()),
        )  # fmt: skip
        moved = np.empty((len(masks), size, size), np.uint8)
        for mask, out, name in zip(masks, moved, outputs, strict=True):
            # what lies beyond the slice is air, in which there is nothing to be found
            beyond = UNKNOWN if (mask == UNKNOWN).all() else 0
            cv2.warpAffine(
                mask, matrix, (size, size), dst=out, flags=cv2.INTER_NEAREST,
                borderMode=cv2.BORDER_CONSTANT, borderValue=beyond,
            )  # fmt: skip
            if hidden and name not in ("lungs", "pleural effusion"):
                out[out == 1] = UNKNOWN
        return self._degrade(np.asarray(turned, np.float32), random), moved

    def _window(self, values: Slice, kind: str, random: np.random.Generator) -> tuple[Slice, bool]:
        """Scale to [0, 1]; and whether the lungs are black all over now."""
        chance, hidden = random.random(), False
        if kind != "HU":
            low, high = float(values.min()), float(values.max())
        elif chance < self.mediastinal:
            (low, high), hidden = _jittered(MEDIASTINAL_WINDOW, random), True
        elif chance < self.mediastinal + self.whole:
            low = max(WHOLE_RANGE[0], float(values.min()))
            high = min(WHOLE_RANGE[1], float(values.max()))
        else:
            low, high = _jittered(LUNG_WINDOWS[random.integers(len(LUNG_WINDOWS))], random)
        scaled = np.clip((values - low) / max(high - low, 1.0), 0, 1)
        return scaled.astype(np.float32), hidden

    def _place(
        self, side: int, lungs: Mask | None, size: int, random: np.random.Generator
    ) -> npt.NDArray[np.float64]:
        """Return the affine matrix, (2, 3), from slice to picture in pixels."""
        centre, span = np.array([side / 2, side / 2]), np.array([side, side], float)
        if lungs is not None and random.random() < self.crop:
            left, top, width, height = cv2.boundingRect((lungs == 1).astype(np.uint8))
            if min(width, height) > side / 8:
                centre = np.array([left + width / 2, top + height / 2])
                span = np.array([width, height]) * (1 + random.uniform(0, 0.33, 2))
                if random.random() < 0.5:  # the other half of such crops are stretched to a square
                    span[:] = span.max()
        zoom = np.exp(random.uniform(-1, 1) * np.log(self.zoom))
        stretch = np.exp(random.uniform(-1, 1) * np.log(self.stretch) / 2)
        scale = size / span * zoom * np.array([stretch, 1 / stretch])
        angle = np.radians(random.uniform(-self.turn, self.turn))
        if random.random() < self.quarter:
            angle += random.integers(1, 4) * np.pi / 2
        flip = -1.0 if random.random() < self.mirror else 1.0
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = turn @ np.diag([flip, 1.0]) @ np.diag(scale)
        offset = size / 2 + random.uniform(-self.shift, self.shift, 2) * size - linear @ centre
        return np.concatenate([linear, offset[:, None]], 1)

    def _degrade(self, image: Slice, random: np.random.Generator) -> Slice:
        gamma = np.exp(random.uniform(-1, 1) * np.log(self.gamma))
        image = (np.clip(image, 0, 1) ** gamma).astype(np.float32)
        if random.random() < self.blur:
            image = np.asarray(cv2.GaussianBlur(image, (0, 0), float(random.uniform(0.4, 1.2))), np.float32)
        if random.random() < self.noise:
            grain = random.standard_normal(image.shape) * random.uniform(0.01, 0.06)
            image = np.asarray(image + grain, np.float32)
        if random.random() < self.jpeg:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(30, 96))]
            _, packed = cv2.imencode(".jpg", (np.clip(image, 0, 1) * 255).astype(np.uint8), quality)
            image = np.asarray(cv2.imdecode(packed, cv2.IMREAD_GRAYSCALE), np.float32)
            image = image / np.float32(255)
        if random.random() < self.invert:
            image = 1 - image
        return np.clip(image, 0, 1).astype(np.float32)


def equalised(image: Slice, clip: float) -> Slice:
    """Return a picture, float32 in [0, 1], after CLAHE with 8 x 8 tiles."""
    grey = (image * 255).astype(np.uint8)
    return np.asarray(cv2.createCLAHE(clip, (8, 8)).apply(grey)).astype(np.float32) / np.float32(255)


def _jittered(window: tuple[float, float], random: np.random.Generator) -> tuple[float, float]:
    low, high = window
    shift, widen = random.uniform(-60, 60), np.exp(random.uniform(-0.15, 0.15))
    middle, half = (low + high) / 2 + shift, (high - low) / 2 * widen
    return middle - half, middle + half


# Warped crops


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
