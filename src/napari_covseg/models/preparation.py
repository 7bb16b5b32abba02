"""A slice as the network wants it: upright, cut out, scaled, equalised; and where it lies in the scan."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ModelError
from napari_covseg.scans.appearance import Appearance, back, upright

T = TypeVar("T", bound=np.generic)

_SMALLEST_RANGE = 0.1
_CHOICES = {"scaling": ("slice", "window"), "crop": ("none", "lungs"), "fit": ("pad", "stretch")}
LUNG_WINDOW = (-1000.0, 400.0)
"""HU that papers show lungs in."""
PICTURE_MARGIN = 0.15
"""Of a side: what a picture that is cropped to the lungs gets around it."""


class Placement(NamedTuple):
    """The part of a slice that a network sees: cut out, padded below and to the right, and resized.

    Attributes
    ----------
    shape : tuple of int
        (y, x) of the scan's slice.
    top, left, height, width : int
        The part, in pixels of the scan.
    """

    shape: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Placement:
        """Return the placement that cuts nothing off slices of this shape, (y, x)."""
        height, width = shape
        return cls((height, width), 0, 0, height, width)

    @classmethod
    def around(cls, mask: npt.NDArray[np.generic], margin: int) -> Placement | None:
        """Return the box around what is not 0, wider by `margin` pixels as far as the slice reaches.

        None where everything is 0.
        """
        left, top, width, height = cv2.boundingRect((mask != 0).astype(np.uint8))
        if width == 0:
            return None
        rows, columns = mask.shape
        first, last = max(0, top - margin), min(rows, top + height + margin)
        start, stop = max(0, left - margin), min(columns, left + width + margin)
        return cls((rows, columns), first, start, last - first, stop - start)

    @property
    def side(self) -> int:
        """Height and width of the part once it is squared, in pixels of the scan."""
        return max(self.height, self.width)

    def part(self, values: npt.NDArray[T]) -> npt.NDArray[T]:
        """Cut the part out of a slice (y, x)."""
        return values[self.top : self.top + self.height, self.left : self.left + self.width]

    def cut(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Cut the part out of a slice (y, x), and square it with its smallest value."""
        part = self.part(values)
        if self.height == self.width:
            return part
        square = np.full((self.side, self.side), part.min(), np.float32)
        square[: self.height, : self.width] = part
        return square


@dataclass(frozen=True)
class Preparation:
    """Clip, crop, resize, scale, equalise: in exactly this order.

    The slices that the default model learned from were made so, without a crop; CLAHE before
    the resize (or without the clip) gives other textures than the network has learned.

    Of the papers, Amer 2021 and Punn 2022 scale to [0, 1] and resize to 256 (`scaling`
    ``"window"`` with `LUNG_WINDOW`, without CLAHE); Salehi 2022 equalises, crops to the lungs
    and resizes to 224; Elbana 2020 equalises and resizes to 512.

    Attributes
    ----------
    size : int
        Height and width of a prepared slice; one that is not square is made so as `fit` says.
    clip_hu : tuple of float
        HU are clipped to this range, so that padding and metal do not stretch the scale.
    clahe_clip : float
        OpenCV's ``clipLimit``; 0 leaves CLAHE out.
    clahe_tiles : int
        Tiles per side.
    scaling : {"slice", "window"}
        What becomes 0 and 1: the smallest and largest value of the slice, or the ends of `clip_hu`.
    crop : {"none", "lungs"}
        ``"lungs"`` sees only the box around the lungs that a model has found, see `place`.
    crop_margin : int
        Pixels of the scan around the lungs.
    fit : {"pad", "stretch"}
        What is not square is padded first, or stretched: bars beside X-rays would tell where a picture comes
        from.
    """

    size: int = 256
    clip_hu: tuple[float, float] = (-1024.0, 1500.0)
    clahe_clip: float = 7.0
    clahe_tiles: int = 8
    scaling: Literal["slice", "window"] = "slice"
    crop: Literal["none", "lungs"] = "none"
    crop_margin: int = 10
    fit: Literal["pad", "stretch"] = "pad"

    def to_card(self) -> dict[str, Any]:
        """Return the settings as JSON-ready values."""
        return {**asdict(self), "clip_hu": list(self.clip_hu)}

    @classmethod
    def from_card(cls, values: dict[str, Any]) -> Preparation:
        """Rebuild from `to_card()`; what an older card does not name is the default.

        Raises
        ------
        ModelError
            If the card has settings that this version does not know.
        """
        try:
            made = cls(**{**values, "clip_hu": tuple(values.get("clip_hu", cls.clip_hu))})
            known = all(getattr(made, key) in choices for key, choices in _CHOICES.items())
        except TypeError:
            known = False
        if not known:
            raise ModelError(f"The model's preparation {values} is not known here. Update napari-covseg.")
        return made

    def place(self, shape: tuple[int, ...], lungs: npt.NDArray[np.generic] | None = None) -> Placement | None:
        """Return which part of a slice the network sees; None where it has to see nothing.

        Parameters
        ----------
        shape : tuple of int
            (y, x) of the slice.
        lungs : ndarray, shape (y, x), optional
            Not 0 where a model has found lung. Needed to crop; never what a person has drawn, which
            is not there when a new scan is labelled.

        Raises
        ------
        ValueError
            If the lungs are needed and missing.
        """
        if self.crop == "none":
            return Placement.whole(shape)
        if lungs is None:
            raise ValueError("a crop to the lungs needs the lungs")
        return Placement.around(lungs, self.crop_margin)

    def __call__(
        self,
        voxels: npt.NDArray[np.generic],
        intensity: Literal["HU", "grey"] = "HU",
        placement: Placement | None = None,
        *,
        equalised: bool = False,
    ) -> npt.NDArray[np.uint8]:
        """Prepare one slice.

        Parameters
        ----------
        voxels : ndarray, shape (y, x)
            HU, or grey values of a picture.
        intensity : {"HU", "grey"}
            Pictures were windowed before they were stored: they are scaled by their own range.
        placement : Placement, optional
            From `place`; by default the whole slice.
        equalised : bool
            Whether CLAHE was applied before the slice was stored: it is not applied twice.

        Returns
        -------
        ndarray of uint8, shape (size, size)
        """
        values = voxels.astype(np.float32)
        if intensity == "HU":
            np.clip(values, *self.clip_hu, out=values)
        place = placement or Placement.whole(values.shape)
        values = place.part(values) if self.fit == "stretch" else place.cut(values)
        if values.shape != (self.size, self.size):
            resized = cv2.resize(values, (self.size, self.size), interpolation=cv2.INTER_CUBIC)
            values = np.asarray(resized, np.float32)
        scaled = self._scaled(values, intensity)
        if self.clahe_clip > 0 and not equalised:
            tiles = (self.clahe_tiles, self.clahe_tiles)
            return np.asarray(cv2.createCLAHE(self.clahe_clip, tiles).apply(scaled), np.uint8)
        return scaled

    def _scaled(
        self, values: npt.NDArray[np.float32], intensity: Literal["HU", "grey"]
    ) -> npt.NDArray[np.uint8]:
        if intensity == "HU" and self.scaling == "window":
            low, high = self.clip_hu
            values = np.clip(values, low, high)  # bicubic weights overshoot at edges
        else:
            low, high = float(values.min()), float(values.max())
        # bicubic weights sum to 1 up to rounding, so that even slices come with a range just above 0
        gain = 255.0 / (high - low) if high - low > _SMALLEST_RANGE else 0.0
        return np.asarray((values - low) * gain).astype(np.uint8)


def reorient(
    slice_: npt.NDArray[Any], appearance: Appearance, *, around: float | None = None
) -> npt.NDArray[Any]:
    """Return a slice (y, x) as a network is to see it: a picture upright, and with a margin if it has none.

    HU come back as they are.

    Parameters
    ----------
    slice_ : ndarray, shape (y, x)
    appearance : Appearance
    around : float, optional
        What the margin holds; of voxels the slice's mean, of labels and probabilities 0. With air beside
        the ribs networks find less of the lesions on pictures of another source, by 0.018 of their Dice
        (`benchmarks/calibrate.py --around`).
    """
    slice_ = upright(slice_, appearance)
    if (margin := _picture_margin(slice_.shape, appearance)) == 0:
        return slice_
    around = float(slice_.mean()) if around is None else around
    return np.pad(slice_, margin, constant_values=np.asarray(around).astype(slice_.dtype))


def reorient_back(labels: npt.NDArray[Any], appearance: Appearance) -> npt.NDArray[Any]:
    """Return what lies on a slice of `reorient`, (..., y, x), on the slice as it was read."""
    if appearance.cropped and appearance.intensity == "grey":
        shape = labels.shape[-2:]
        # the margin was a share of the side before there was one
        side = max(shape)
        margin = next(m for m in range(side // 2) if m == _picture_margin((side - 2 * m,), appearance))
        labels = labels[..., margin : shape[0] - margin, margin : shape[1] - margin]
    return np.ascontiguousarray(back(labels, appearance))


def _picture_margin(shape: tuple[int, ...], appearance: Appearance) -> int:
    return round(PICTURE_MARGIN * max(shape)) if appearance.cropped and appearance.intensity == "grey" else 0


def as_shown(
    slice_: npt.NDArray[Any], appearance: Appearance, preparation: Preparation
) -> npt.NDArray[np.uint8]:
    """Return a slice (y, x) as a network is shown it, uint8 (size, size), for a person to look at.

    Of a preparation that crops to the lungs it is the whole slice: the lungs are not known before a
    model has found them.
    """
    upright_slice = reorient(slice_, appearance)
    return preparation(upright_slice, appearance.intensity, equalised=appearance.equalised)
