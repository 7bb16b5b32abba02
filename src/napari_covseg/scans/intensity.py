"""From stored values to int16: HU or grey, padding, range. One rule for every format."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from napari_covseg.scans.scan import Intensity, Values

AIR = -1024
"""HU of padding, and the least HU that a scan holds."""

LARGEST = 32767

VALUES: tuple[Values, ...] = get_args(Values)

OFFSET = 1024
"""What scanners add to HU so that nothing is negative."""

LOWEST, HIGHEST = -3200, 3200
"""Values are counted singly between these; what lies beyond is counted at the ends."""

PADDING = -1200
"""Nothing in a scanner is lighter than air, with its noise: HU below this are padding."""


def to_int16(values: npt.NDArray[Any], out: npt.NDArray[np.int16]) -> None:
    """Round `values` into `out` (same shape); below -1024 (padding) and NaN become -1024."""
    clipped = np.clip(values, AIR, LARGEST)
    if clipped.dtype.kind == "f":
        np.rint(clipped, out=clipped)
        clipped[np.isnan(clipped)] = AIR
    out[...] = clipped


@dataclass(frozen=True, eq=False)
class Census:
    """How often which value stands in a scan.

    Attributes
    ----------
    counts : ndarray of int64, shape (HIGHEST - LOWEST,)
        Of `LOWEST`, `LOWEST` + 1 and so on; of large slices every second row and column is counted.
    low, high : float
        Least and greatest number of all.
    missing : int
        How many are NaN.
    """

    counts: npt.NDArray[np.int64]
    low: float
    high: float
    missing: int = 0

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> Census:
        """Count the values of a slice, numbers of any type; infinite ones stay in `low` or `high`."""
        sampled, missing = values[..., ::2, ::2] if values.size > 1 << 14 else values, 0
        if values.dtype.kind == "f" and (missing := int(np.isnan(values).sum())):
            sampled, values = sampled[~np.isnan(sampled)], values[~np.isnan(values)]
        if not values.size:
            return cls(np.zeros(HIGHEST - LOWEST, np.int64), np.inf, -np.inf, missing)
        low, high = float(values.min()), float(values.max())
        some = np.clip(sampled, LOWEST, HIGHEST - 1)
        some = np.rint(some) if some.dtype.kind == "f" else some
        places = some.ravel().astype(np.int32) - LOWEST
        return cls(np.bincount(places, minlength=HIGHEST - LOWEST), low, high, missing)

    @classmethod
    def sum(cls, parts: Iterable[Census]) -> Census:
        """Add the counts of slices together."""
        counts = np.zeros(HIGHEST - LOWEST, np.int64)
        low, high, missing = np.inf, -np.inf, 0
        for part in parts:
            counts += part.counts
            low, high, missing = min(low, part.low), max(high, part.high), missing + part.missing
        return cls(counts, low, high, missing)

    def less(self, offset: int) -> Census:
        """Return the census of the same scan with `offset` taken off each value."""
        counts = np.zeros_like(self.counts)
        counts[:-offset] = self.counts[offset:]
        counts[0] += self.counts[:offset].sum()
        return Census(counts, self.low - offset, self.high - offset, self.missing)

    @property
    def least_meant(self) -> float:
        """The least value that is no padding: far below all others, many voxels may share one value."""
        places = np.flatnonzero(self.counts)
        if len(places) < _FEW or places[0] == 0 or places[1] - places[0] < _GAP:
            return self.low
        return float(places[1] + LOWEST)

    def _within(self, low: int, high: int) -> npt.NDArray[np.int64]:
        return self.counts[low - LOWEST : high - LOWEST + 1]


_FEW = 16
_GAP = 200
_TOY = 1000
_LEAST_AIR = 0.005
_LEAST_TISSUE = 0.02


def is_chest(census: Census) -> bool:
    """Whether values lie where HU of a chest do: air and lung, and tissue around water.

    Neither the least value nor the type of the stored numbers decides: borders of -1000, -1024, -2000
    or -3024 lie around raw values too. One value alone is therefore no air, unless nearly all of the
    rest is tissue; tissue is not much less than what is denser; and below -1200 there are only values
    of padding, which are few (of HU from which 1024 was taken twice, air and lung lie there). Of less
    than 1000 voxels no share says anything, there air alone decides.
    """
    counts = census.counts
    below = census._within(LOWEST, PADDING - 1)
    if below.sum() - np.sort(below)[-3:].sum() > 0.05 * counts.sum():
        return False
    air, soft, dense = (
        census._within(-1150, -500),
        census._within(-250, 250),
        census._within(251, HIGHEST - 1),
    )
    meant = counts.sum() - below.sum()
    if counts.sum() < _TOY:
        return bool(air.sum() > 0)
    if soft.sum() < _LEAST_TISSUE * (meant - air.max()) or 4 * soft.sum() < dense.sum():
        return False
    if air.sum() - air.max() >= _LEAST_AIR * (meant - air.max()) and air.sum() > air.max():
        return True
    return bool(air.sum() > 0 and soft.sum() > 3 * dense.sum())


@dataclass(frozen=True)
class Scaling:
    """How the values of a volume or picture are understood.

    Attributes
    ----------
    intensity : {"HU", "grey"}
    low, high : float, optional
        Mapped to 0 and 255, what lies beyond as well; None keeps the values as they are.
    offset : int
        Taken off each value.
    note : str
        One sentence for the person, empty if there is nothing to say.
    """

    intensity: Intensity
    low: float | None = None
    high: float | None = None
    offset: int = 0
    note: str = ""

    def apply(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return the values as the scan holds them, before rounding."""
        if self.low is not None and self.high is not None:
            scale = 255.0 / (self.high - self.low)
            grey = np.clip((values.astype(np.float64) - self.low) * scale, 0.0, 255.0)
            return np.where(np.isnan(grey), 0.0, grey)
        if self.offset:
            wide = values if values.dtype.kind == "f" else values.astype(np.int64)
            return wide - self.offset
        return values

    @property
    def changes(self) -> bool:
        """Whether `apply` does anything."""
        return self.low is not None or self.offset != 0


AS_THEY_ARE = Scaling("HU")
"""Values that are read before it is known what they are."""


def understand(census: Census, said: Values | None = None) -> Scaling:
    """Decide whether values are HU, grey as stored, or grey to be scaled.

    Values that lie where HU of a chest do are HU, see `is_chest`. From 0 to 255 is grey as stored.
    Everything else, such as 0-1, 0-4095 or z-scores, has no known zero and is scaled linearly to
    0-255; a padding value far below does not count in that.

    Parameters
    ----------
    census : Census
    said : {"HU", "HU+1024", "grey"}, optional
        What a person says that the values are.
    """
    if said == "HU" or (said is None and is_chest(census)):
        return Scaling("HU")
    if said == "HU+1024":
        return Scaling("HU", offset=OFFSET, note=f"{OFFSET} was taken off each value, as was asked.")
    if census.low >= 0 and 1 < census.high <= 255:
        return Scaling("grey")
    low, high = census.least_meant, census.high
    low = low if low < high else census.low
    note = f"Values {low:g} to {high:g} are not HU of a chest: taken as grey and scaled to 0-255."
    if said == "grey":
        note = f"Values {low:g} to {high:g} are taken as grey, as was asked, and scaled to 0-255."
    elif high - low > OFFSET / 2 and is_chest(census.less(OFFSET)):
        note += f" Less {OFFSET} they could be: read it again with its values said to be HU+{OFFSET}."
    return Scaling("grey", low, high, note=note)
