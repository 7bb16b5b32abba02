"""What a person may change just now: not locked labels, not accepted slices, perhaps only a HU range."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.cases import OpenCase, Review
from napari_covseg.edit import HuRange
from napari_covseg.edit.hu_range import in_range
from napari_covseg.labels import GROUPS, Group


class Limits:
    """Protects voxels of a case from brushes and tools.

    Parameters
    ----------
    case : OpenCase

    Attributes
    ----------
    locked : dict of set of int
        Label values, by group, that nothing changes from or to.
    hu_range : HuRange or None
        Brush and eraser change only voxels in it.
    """

    def __init__(self, case: OpenCase) -> None:
        self._case = case
        self.locked: dict[Group, set[int]] = {group: set() for group in GROUPS}
        self.hu_range: HuRange | None = None

    @property
    def accepted(self) -> npt.NDArray[np.bool_]:
        """Which slices a person has accepted, (z,)."""
        return np.asarray(self._case.review == Review.ACCEPTED)

    def allowed(
        self, group: Group, before: npt.NDArray[np.uint8], after: Any, key: Any
    ) -> npt.NDArray[np.bool_] | None:
        """Return where a change is allowed, None if everywhere.

        Parameters
        ----------
        group : {"lungs", "lesions"}
        before : ndarray of uint8
            Values there now.
        after : int or ndarray of uint8
            Values to come.
        key : tuple
            Three slices, or index arrays (z, y, x) with the shape of `before`.
        """
        forbidden = None
        locked = self.locked[group]
        if locked:
            values = list(locked)
            forbidden = np.isin(before, values) | np.isin(after, values)
        accepted = self.accepted[key[0]]
        if accepted.any():
            shut = accepted.reshape(-1, 1, 1) if isinstance(key[0], slice) else accepted
            shut = np.broadcast_to(shut, before.shape)
            forbidden = shut if forbidden is None else forbidden | shut
        return None if forbidden is None else ~forbidden

    def brushable(
        self, group: Group, before: npt.NDArray[np.uint8], after: Any, key: Any
    ) -> npt.NDArray[np.bool_] | None:
        """Return where a brush may paint, None if everywhere; as `allowed`, and within the HU range."""
        allowed = self.allowed(group, before, after, key)
        if self.hu_range is None:
            return allowed
        inside = in_range(self._case.voxels[key], self.hu_range)
        return np.asarray(inside if allowed is None else allowed & inside)
