"""Ranges of Hounsfield units that bound brush, eraser and growing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import EditError

Voxels = npt.NDArray[np.int16]


@dataclass(frozen=True)
class HuRange:
    """HU from `low` to `high`, both included; for pictures, grey values.

    Raises
    ------
    EditError
        If `low` lies above `high`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise EditError(
                f"The range from {self.low} to {self.high} HU is empty: its lower end has to come first."
            )

    def __str__(self) -> str:
        return f"{self.low} to {self.high} HU".replace("-", "\N{MINUS SIGN}")


PRESETS: dict[str, HuRange] = {
    "ground-glass": HuRange(-800, -500),
    "consolidation": HuRange(-300, 50),
    "effusion": HuRange(0, 50),
}


def in_range(voxels: Voxels, hu_range: HuRange) -> npt.NDArray[np.bool_]:
    """Return where voxels, int16 of any shape, lie in a range: to draw it on the image."""
    return np.asarray((voxels >= hu_range.low) & (voxels <= hu_range.high))
