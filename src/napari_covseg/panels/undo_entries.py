"""What a model's write needs to be undone: packed, because it may be most of a scan."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from napari_covseg.labels import GROUPS, Group


class Packed:
    """An array that is unpacked when NumPy asks for it.

    Parameters
    ----------
    values : ndarray
        Masks and labels shrink to about a hundredth.
    """

    def __init__(self, values: npt.NDArray[Any]) -> None:
        self._bytes = zlib.compress(np.ascontiguousarray(values).tobytes(), level=1)
        self._dtype = values.dtype
        self._shape = values.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        values = np.frombuffer(zlib.decompress(self._bytes), self._dtype).reshape(self._shape)
        return values if dtype is None else values.astype(dtype)


class SliceChange(NamedTuple):
    """How a model changed one slice: an entry of napari's labels history.

    Attributes
    ----------
    indices : tuple
        Slice and packed mask (y, x), an index into (z, y, x).
    before, after : Packed
        uint8 values of the mask's voxels.
    """

    indices: tuple[int, Packed]
    before: Packed
    after: Packed

    @property
    def z(self) -> int:
        """The slice."""
        return self.indices[0]


def slice_change(
    shape: tuple[int, int, int],
    indices: tuple[npt.NDArray[np.intp], ...],
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
) -> SliceChange:
    """Pack the change of one slice.

    Parameters
    ----------
    shape : tuple of int
        Of the scan, (z, y, x).
    indices : tuple of ndarray
        (z, y, x) of the changed voxels, all in one slice and in the order of memory.
    before, after : ndarray of uint8
        Their values.
    """
    z, y, x = indices
    mask = np.zeros(shape[1:], np.bool_)
    mask[y, x] = True
    return SliceChange((int(z[0]), Packed(mask)), Packed(before), Packed(after))


class UndoableWriter:
    """Writes what a model has labelled into the labels in memory, and packs what undoing it needs.

    Parameters
    ----------
    live : dict of ndarray of uint8, shape (z, y, x)
        The labels by group.

    Attributes
    ----------
    entries : dict of list of SliceChange
        By group.
    """

    def __init__(self, live: Mapping[Group, npt.NDArray[np.uint8]]) -> None:
        self._live = live
        self.entries: dict[Group, list[SliceChange]] = {group: [] for group in GROUPS}

    def write(
        self, group: Group, indices: tuple[npt.NDArray[np.intp], ...], values: npt.NDArray[np.uint8]
    ) -> None:
        """Write the changes of one slice."""
        labels = self._live[group]
        before = labels[indices]
        labels[indices] = values
        shape = (labels.shape[0], labels.shape[1], labels.shape[2])
        self.entries[group].append(slice_change(shape, indices, before, values))


class ToolChange(SliceChange):
    """How a person's tool changed one slice.

    Attributes
    ----------
    tool : str
        What the tool is called.
    """

    tool: str = ""


def tool_changes(
    shape: tuple[int, ...],
    index: tuple[npt.NDArray[np.intp], ...],
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
    tool: str,
) -> list[ToolChange]:
    """Pack the change of a tool, slice by slice.

    Parameters
    ----------
    shape : tuple of int
        Of the scan, (z, y, x).
    index : tuple of ndarray
        (z, y, x) of the changed voxels, in any order, each once.
    before, after : ndarray of uint8
        Their values.
    tool : str
        What the tool is called.
    """
    flat = np.ravel_multi_index(index, shape)
    order = np.argsort(flat, kind="stable")
    z, y, x = (axis[order] for axis in index)
    starts = np.flatnonzero(np.diff(z, prepend=-1))
    changes = []
    for part in np.split(np.arange(len(z)), starts[1:]):
        rows = order[part]
        packed = slice_change(
            (shape[0], shape[1], shape[2]), (z[part], y[part], x[part]), before[rows], after[rows]
        )
        change = ToolChange(*packed)
        change.tool = tool
        changes.append(change)
    return changes
