"""A slice as the network wants it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError

_SMALLEST_RANGE = 0.1


@dataclass(frozen=True)
class Preparation:
    """Clip, resize, scale by the slice's own range, equalise: in exactly this order.

    The training slices were made so, and CLAHE before the resize (or without the clip)
    gives other textures than the network has learned.

    Attributes
    ----------
    size : int
        Height and width of a prepared slice; a slice that is not square is padded first.
    clip_hu : tuple of float
        HU are clipped to this range, so that padding and metal do not stretch the scale.
    clahe_clip : float
        OpenCV's ``clipLimit``; 0 leaves CLAHE out.
    clahe_tiles : int
        Tiles per side.
    """

    size: int = 256
    clip_hu: tuple[float, float] = (-1024.0, 1500.0)
    clahe_clip: float = 7.0
    clahe_tiles: int = 8

    def to_card(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        return {**asdict(self), "clip_hu": list(self.clip_hu)}

    @classmethod
    def from_card(cls, values: dict[str, Any]) -> Preparation:
        """Rebuild from `to_card()`.

        Raises
        ------
        ModelError
            If the card has settings that this version does not know.
        """
        try:
            return cls(**{**values, "clip_hu": tuple(values.get("clip_hu", cls.clip_hu))})
        except TypeError as error:
            raise ModelError(
                f"The model's preparation {values} is not known here. Update napari-covseg."
            ) from error

    def __call__(
        self, voxels: npt.NDArray[np.generic], intensity: Literal["HU", "grey"] = "HU"
    ) -> npt.NDArray[np.uint8]:
        """Prepare one slice.

        Parameters
        ----------
        voxels : ndarray, shape (y, x)
            HU, or grey values of a picture.
        intensity : {"HU", "grey"}
            Pictures are only resized and scaled: they were windowed, and often
            equalised, before they were stored.

        Returns
        -------
        ndarray of uint8, shape (size, size)
        """
        values = voxels.astype(np.float32)
        if intensity == "HU":
            np.clip(values, *self.clip_hu, out=values)
        height, width = values.shape
        if height != width:
            side = max(height, width)
            square = np.full((side, side), values.min(), np.float32)
            square[:height, :width] = values
            values = square
        if values.shape != (self.size, self.size):
            resized = cv2.resize(values, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            values = np.asarray(resized, np.float32)
        low, high = float(values.min()), float(values.max())
        # bicubic weights sum to 1 up to rounding, so that even slices come with a range just above 0
        gain = 255.0 / (high - low) if high - low > _SMALLEST_RANGE else 0.0
        scaled = ((values - low) * gain).astype(np.uint8)
        if intensity == "HU" and self.clahe_clip > 0:
            tiles = (self.clahe_tiles, self.clahe_tiles)
            return np.asarray(cv2.createCLAHE(self.clahe_clip, tiles).apply(scaled), np.uint8)
        return scaled
