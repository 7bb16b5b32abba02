"""Follows what a person, and what a model, changes in a labels layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

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
        Takes those of a model's step that was undone or redone.
    """

    def __init__(
        self, layer: Labels, on_painted: Callable[[Indices], None], on_model_step: Callable[[Indices], None]
    ) -> None:
        self._layer = layer
        self._on_painted = on_painted
        self._on_model_step = on_model_step
        self._writing = False
        self._model_atoms: list[Any] = []
        self._undone = len(layer._redo_history)
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)

    def disconnect(self) -> None:
        """Stop following the layer."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.set_data.disconnect(self._on_set_data)

    def write_as_model(self, indices: Indices, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
        """Make voxels that already hold `after` one undoable step of the model.

        Parameters
        ----------
        indices : tuple of ndarray
            (z, y, x) of the changed voxels; kept by the history, so small dtypes pay.
        before, after : ndarray of uint8
            Their values.
        """
        if not len(before):
            return
        layer = self._layer
        layer.data[indices] = before
        self._writing = True
        try:
            with layer.block_history():
                layer.data_setitem(indices, after, refresh=False)
        finally:
            self._writing = False

    def _on_paint(self, event: Any) -> None:
        self._undone = len(self._layer._redo_history)
        atoms = list(event.value)
        if self._writing:
            kept = {id(atom) for item in self._layer._undo_history for atom in item}
            self._model_atoms = [atom for atom in self._model_atoms if id(atom) in kept] + atoms
        else:
            self._tell(atoms)

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

    def _tell(self, atoms: list[Any]) -> None:
        model = {id(atom) for atom in self._model_atoms}
        for atom in atoms:
            tell = self._on_model_step if id(atom) in model else self._on_painted
            for indices in changed_voxels(atom):
                tell(indices)


def changed_voxels(atom: Any) -> Iterator[Indices]:
    """Yield (z, y, x) index arrays of one entry of napari's labels history.

    An entry is a box with a mask (brush, fill, polygon) or a tuple that starts with
    the indices (`Labels.data_setitem`).
    """
    if not hasattr(atom, "slice_key"):
        yield tuple(np.atleast_1d(np.asarray(axis)) for axis in atom[0])
        return
    starts = [part.start for part in atom.slice_key]
    shape = [part.stop - part.start for part in atom.slice_key]
    mask = atom.mask if atom.mask is not None else np.ones(shape, bool)
    inside = np.nonzero(np.reshape(mask, shape))
    yield tuple(axis + start for axis, start in zip(inside, starts, strict=True))
