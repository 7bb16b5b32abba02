"""Where in a scan's slice a prepared one lies, and how to get back there."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

T = TypeVar("T", bound=np.generic)


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
