"""Random changes that a scan could have had: position, size, orientation, contrast, noise, blur."""

from __future__ import annotations

import numpy as np
import torch
from monai.transforms import (  # type: ignore[attr-defined]
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
)
from monai.utils.type_conversion import convert_to_tensor
from torch import Tensor


class Augmentation:
    """Augment a batch with MONAI's transforms; the same generator gives the same batch.

    Both flips are on: the sources lie on either side, and the lungs are labelled as one
    (left and right are told apart after the network).
    """

    def __init__(self) -> None:
        both = ["image", "masks"]
        self._affine = RandAffined(
            both, prob=1.0, rotate_range=0.3, shear_range=0.1, translate_range=24, scale_range=(-0.3, 0.35),
            mode=["bilinear", "nearest"], padding_mode="zeros",
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
            rows.append([convert_to_tensor(row[name], track_meta=False) for name in both])
        augmented = torch.stack([image for image, _ in rows]).clamp_(0, 1)
        return augmented.contiguous(memory_format=torch.channels_last), torch.stack(
            [mask for _, mask in rows]
        )
