"""A slice as the network wants it, and the way back to the scan's grid."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError


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
        return asdict(self)

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
            raise ModelError(f"The model's preparation {values} is not known here. Update napari-covseg.") from error

    def __call__(self, voxels: npt.NDArray[np.generic], intensity: Literal["HU", "grey"] = "HU") -> npt.NDArray[np.uint8]:
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
            bottom, right = side - height, side - width
            low = float(values.min())
            values = cv2.copyMakeBorder(values, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=low)  # type: ignore[call-overload]
        if values.shape != (self.size, self.size):
            values = cv2.resize(values, (self.size, self.size), interpolation=cv2.INTER_CUBIC)  # type: ignore[assignment]
        low, high = float(values.min()), float(values.max())
        scaled = ((values - low) * (255.0 / max(high - low, 1e-6))).astype(np.uint8)
        if intensity == "HU" and self.clahe_clip > 0:
            tiles = (self.clahe_tiles, self.clahe_tiles)
            return np.asarray(cv2.createCLAHE(self.clahe_clip, tiles).apply(scaled))
        return scaled

    def restore(self, probability: npt.NDArray[np.float32], shape: tuple[int, int]) -> npt.NDArray[np.float32]:
        """Resize a probability map back to the scan's grid.

        Probabilities are resized, never labels: thresholding comes after, so that outlines
        stay smooth at the scan's resolution.

        Parameters
        ----------
        probability : ndarray of float32, shape (size, size)
        shape : tuple of int
            (y, x) of the slice as it was given.

        Returns
        -------
        ndarray of float32, shape (y, x)
        """
        side = max(shape)
        if probability.shape == (side, side):
            return probability[: shape[0], : shape[1]]
        full = cv2.resize(probability, (side, side), interpolation=cv2.INTER_LINEAR)
        return np.asarray(full[: shape[0], : shape[1]], np.float32)
