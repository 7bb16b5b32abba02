"""A slice as a network is to see it, and back: upright, with a margin, prepared; without torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.models.preparation import Preparation
from napari_covseg.scans.appearance import Appearance, back, upright

_MARGIN = 0.15
"""Of a side: what a picture that is cropped to the lungs gets around it."""


def stand(slice_: npt.NDArray[Any], appearance: Appearance) -> npt.NDArray[Any]:
    """Return a slice (y, x) as a network is to see it: a picture upright, and with a margin if it has none.

    HU come back as they are.
    """
    slice_ = upright(slice_, appearance)
    if (margin := _margin(slice_.shape, appearance)) == 0:
        return slice_
    return np.pad(slice_, margin, constant_values=slice_.min())


def lay(labels: npt.NDArray[Any], appearance: Appearance) -> npt.NDArray[Any]:
    """Return what lies on a slice of `stand`, (..., y, x), on the slice as it was read."""
    if appearance.cropped and appearance.intensity == "grey":
        shape = labels.shape[-2:]
        # the margin was a share of the side before there was one
        side = max(shape)
        margin = next(m for m in range(side // 2) if m == _margin((side - 2 * m,), appearance))
        labels = labels[..., margin : shape[0] - margin, margin : shape[1] - margin]
    return np.ascontiguousarray(back(labels, appearance))


def _margin(shape: tuple[int, ...], appearance: Appearance) -> int:
    return round(_MARGIN * max(shape)) if appearance.cropped and appearance.intensity == "grey" else 0


def as_shown(
    slice_: npt.NDArray[Any], appearance: Appearance, preparation: Preparation
) -> npt.NDArray[np.uint8]:
    """Return a slice (y, x) as a network is shown it, uint8 (size, size), for a person to look at.

    Of a preparation that crops to the lungs it is the whole slice: the lungs are not known before a
    model has found them.
    """
    standing = stand(slice_, appearance)
    return preparation(standing, appearance.intensity, equalised=appearance.equalised)
