"""Follows what a person, and what a model, changes in a labels layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_covseg.panels.model_step import SliceChange

Indices = tuple[npt.NDArray[np.integer[Any]], ...]


class Strokes:
    """Tells of every voxel that a person paints, erases, undoes or redoes.

    napari emits ``paint`` when something is painted, but for undo and redo only
    ``set_data``, the event of any redraw; the length of the redo history tells them apart.

    Parameters
    ----------
    layer : Labels
    on_painted : callable
        Takes (z, y, x) index arrays of voxels that a person changed.
    on_model_step : callable
        Takes the slices of a model's step that was undone or redone.
    """

    def __init__(
        self, layer: Labels, on_painted: Callable[[Indices], None], on_model_step: Callable[[list[int]], None]
    ) -> None:
        self._layer = layer
        self._on_painted = on_painted
        self._on_model_step = on_model_step
        self._undone = len(layer._redo_history)
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)

    def disconnect(self) -> None:
        """Stop following the layer."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.set_data.disconnect(self._on_set_data)

    def add_model_step(self, changes: Sequence[SliceChange]) -> None:
        """Make what a model has written already one step that Ctrl+Z takes back.

        Parameters
        ----------
        changes : sequence of SliceChange
            One per slice.
        """
        if not changes:
            return
        # `data_setitem`, the public way, keeps 25 bytes a voxel; a last pass over a scan
        # would cost more memory than the scan, and a second of standstill
        with self._layer.block_history():
            for change in changes:
                self._layer._save_history(change)

    def _on_paint(self, event: Any) -> None:
        self._undone = len(self._layer._redo_history)
        self._tell([atom for atom in event.value if not isinstance(atom, SliceChange)])

    def _on_set_data(self, event: Any = None) -> None:
        layer = self._layer
        undone = len(layer._redo_history)
        more = undone - self._undone
        if not more:
            return
        self._undone = undone
        steps = list(layer._redo_history)[-more:] if more > 0 else list(layer._undo_history)[more:]
        for atoms in steps:
            self._tell(atoms)

    def _tell(self, atoms: Sequence[Any]) -> None:
        model = [atom.z for atom in atoms if isinstance(atom, SliceChange)]
        if model:
            self._on_model_step(model)
        for atom in atoms:
            if not isinstance(atom, SliceChange):
                self._on_painted(changed_voxels(atom))


def changed_voxels(atom: Any) -> Indices:
    """Return (z, y, x) index arrays of one entry of napari's labels history.

    An entry is a box with a mask (brush, fill, polygon) or a tuple that starts with
    the indices (`Labels.data_setitem`).
    """
    if not hasattr(atom, "slice_key"):
        return tuple(np.atleast_1d(np.asarray(axis)) for axis in atom[0])
    starts = [part.start for part in atom.slice_key]
    shape = [part.stop - part.start for part in atom.slice_key]
    mask = atom.mask if atom.mask is not None else np.ones(shape, bool)
    inside = np.nonzero(np.reshape(mask, shape))
    return tuple(axis + start for axis, start in zip(inside, starts, strict=True))
