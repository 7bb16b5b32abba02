"""From stored values to int16: HU or grey, padding, range."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.scans.scan import Intensity

AIR = -1024
"""HU of padding, and the least HU that a scan holds."""

LARGEST = 32767

CT_LIKE = -500
"""A chest CT holds air. Values that never fall this low are not HU of a chest."""


def to_int16(values: npt.NDArray[Any], out: npt.NDArray[np.int16]) -> None:
    """Round `values` into `out` (same shape); below -1024 (padding) becomes -1024."""
    clipped = np.clip(values, AIR, LARGEST)
    out[...] = np.rint(clipped) if clipped.dtype.kind == "f" else clipped


def has_air(low: float) -> bool:
    """Whether a scan whose least value is `low` can be a chest CT in HU."""
    return low <= CT_LIKE


@dataclass(frozen=True)
class Scaling:
    """How the values of a volume or picture of unknown kind are understood.

    ``low`` and ``high`` are mapped to 0 and 255; None keeps the values as they are.
    """

    intensity: Intensity
    low: float | None = None
    high: float | None = None

    @property
    def note(self) -> str:
        """One sentence for the person, empty if nothing was scaled."""
        if self.low is None or self.high is None:
            return ""
        return (
            f"Values {self.low:g} to {self.high:g} are not HU of a chest: taken as grey and scaled to 0-255."
        )

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values as the scan holds them, before rounding."""
        if self.low is None or self.high is None:
            return values
        return (values.astype(np.float64) - self.low) * (255.0 / (self.high - self.low))


def understand(low: float, high: float) -> Scaling:
    """Decide from the range whether values are HU, grey as stored, or grey to be scaled.

    Air (-500 and below) means HU. From 0 to 255 is grey as stored. Everything else, such
    as 0-1, 0-4095 or z-scores, has no known zero and is scaled linearly to 0-255.
    """
    if has_air(low):
        return Scaling("HU")
    if low >= 0 and 1 < high <= 255:
        return Scaling("grey")
    return Scaling("grey", low, high)
