"""Random changes that a scan could have had: position, size, orientation, contrast, noise, blur."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

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
