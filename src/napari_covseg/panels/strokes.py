"""Follows what a person, and what a model, changes in a labels layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_covseg.panels.model_step import SliceChange, ToolChange, tool_changes

Indices = tuple[npt.NDArray[np.intp], ...]
Allowed = Callable[[npt.NDArray[np.uint8], Any, Any], "npt.NDArray[np.bool_] | None"]
PART = 0.5  # seconds of a drag that are told before it ends: a crash takes no more with it
TOOL_OF_MODE = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}
HOOKED = ("_apply_mask_to_data", "data_setitem", "_save_history", "undo", "redo", "_abort_stroke")


@dataclass(frozen=True, eq=False)
class Change:
    """What one step of a person has changed.

    Attributes
    ----------
    index : tuple of ndarray
        (z, y, x) of the voxels, each once.
    before : ndarray of uint8
        Their values before; those after are in the layer.
    tool : str
        What they were changed with.
    """

    index: Indices
    before: npt.NDArray[np.uint8]
    tool: str


class Strokes:
    """Tells of every voxel that a person paints, erases, undoes or redoes, and limits where.

    napari emits ``paint`` when something is painted, but for undo and redo only
    ``set_data``, the event of any redraw; the length of the redo history tells them apart.

    Parameters
    ----------
    layer : Labels
    on_change : callable
        Takes the `Change` of each step that a person made, undid or redid.
    on_model_step : callable
        Takes the slices of a model's step that was undone or redone.
    brushable, allowed : callable, optional
        Take values before, values after and their place in the layer; return a mask, or
        None for everywhere. The first limits what napari's brush, eraser, fill and polygon
        paint; what any other way of painting has changed against the second is put back
        within the same step.
    """

    def __init__(
        self,
        layer: Labels,
        on_change: Callable[[Change], None],
        on_model_step: Callable[[list[int]], None],
        brushable: Allowed | None = None,
        allowed: Allowed | None = None,
    ) -> None:
        self._layer = layer
        self._on_change = on_change
        self._on_model_step = on_model_step
        self._brushable = brushable
        self._allowed = allowed
        self._undone = len(layer._redo_history)
        self._told, self._since = 0, 0.0  # of the drag: how many of its atoms, and when
        self._held: list[tuple[int, Any, Any]] = []  # what a model's step must not take back or bring
        self.brush = ""  # what the brush is called while it is limited
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)
        self._hook()

    def disconnect(self) -> None:
        """Stop following the layer."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.set_data.disconnect(self._on_set_data)
        for name in HOOKED:
            self._layer.__dict__.pop(name, None)

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

    def write(
        self,
        index: Indices,
        before: npt.NDArray[np.uint8],
        after: npt.NDArray[np.uint8],
        tool: str,
    ) -> int:
        """Change voxels as one step of a person, and tell of it.

        Voxels that have changed since `before` was read are passed over.

        Parameters
        ----------
        index : tuple of ndarray
            (z, y, x) of the voxels, each once.
        before, after : ndarray of uint8
            Their values.
        tool : str
            What they are changed with.

        Returns
        -------
        int
            How many voxels have changed.
        """
        data = self._layer.data
        fits = data[index] == before
        if self._allowed is not None:
            allowed = self._allowed(before, after, index)
            fits = fits if allowed is None else fits & allowed
        index = tuple(axis[fits] for axis in index)
        before, after = before[fits], after[fits]
        if not len(before):
            return 0
        data[index] = after
        self.add_model_step(tool_changes(data.shape, index, before, after, tool))
        self._on_change(Change(index, before, tool))
        self._layer.refresh(thumbnail=False, highlight=False, extent=False)
        return len(before)

    def _hook(self) -> None:
        """Go before the methods through which all painting, undoing and redoing goes.

        napari tells of a step that is not a drag before it has written it; in a block of
        history it tells afterwards. Of undoing it tells only once that is done.
        """
        layer, kind = self._layer, type(self._layer)

        def limited(data: Any, mask: Any, new_label: int, place: Any) -> Any:
            allowed = None if self._brushable is None else self._brushable(data, new_label, place)
            if allowed is not None:
                mask = mask & allowed
            with self._one_step():
                painted = kind._apply_mask_to_data(layer, data, mask, new_label, place)
            self._tell_part()
            return painted

        def data_setitem(*args: Any, **kwargs: Any) -> None:
            with self._one_step():
                kind.data_setitem(layer, *args, **kwargs)

        if hasattr(kind, "_apply_mask_to_data"):
            layer._apply_mask_to_data = limited
        layer.data_setitem = data_setitem

        def save_history(value: Any) -> None:
            kind._save_history(layer, value)
            # painting clears what could be redone: a redraw within a drag must not take that for redoing
            self._undone = len(layer._redo_history)

        layer._save_history = save_history

        def undo() -> None:
            self._held = self._protected(layer._undo_history)
            kind.undo(layer)

        def redo() -> None:
            self._held = self._protected(layer._redo_history)
            kind.redo(layer)

        layer.undo, layer.redo = undo, redo

        def abort() -> None:
            told, self._told = layer._staged_history[: self._told], 0
            kind._abort_stroke(layer)
            if told:
                self._tell(told[::-1], "undo", backwards=True)

        if hasattr(kind, "_abort_stroke"):
            layer._abort_stroke = abort

    def _one_step(self) -> AbstractContextManager[None]:
        # a block within a drag's would end the drag's step early
        return nullcontext() if self._layer._block_history else self._layer.block_history()

    def _on_paint(self, event: Any) -> None:
        self._undone = len(self._layer._redo_history)
        told, self._told = self._told, 0
        atoms = event.value
        if any(isinstance(atom, SliceChange) for atom in atoms):
            # who wrote those knows; but a model may write in the middle of a drag, which napari then ends
            atoms = [atom for atom in atoms if not isinstance(atom, SliceChange)]
        else:
            self._put_back(atoms)
        if atoms[told:]:
            self._tell(atoms[told:], self._tool())

    def _tell_part(self) -> None:
        """Tell what a drag has painted so far, every now and then."""
        layer = self._layer
        if not layer._block_history:
            return
        now, staged = time.monotonic(), layer._staged_history
        if len(staged) <= 1:
            self._since = now  # it has just begun
        elif now - self._since >= PART:
            self._tell(staged[self._told :], self._tool())
            self._told, self._since = len(staged), now

    def _tool(self) -> str:
        mode = str(self._layer.mode)
        tool = TOOL_OF_MODE.get(mode, "painting")
        return f"{self.brush} {tool}" if self.brush and mode in ("paint", "erase") else tool

    def _put_back(self, atoms: list[Any]) -> None:
        """Restore protected voxels of a step, and leave the rest as the step."""
        if self._allowed is None:
            return
        kept, refused = [], False
        for atom in atoms:
            index, before, after = parts(atom)
            allowed = self._allowed(before, after, index)
            if allowed is None or allowed.all():
                kept.append(atom)
                continue
            refused = True
            self._layer.data[tuple(axis[~allowed] for axis in index)] = before[~allowed]
            if allowed.any():
                left = tuple(axis[allowed] for axis in index)
                kept.append((left, before[allowed], after[allowed]))
        if refused:
            atoms[:] = kept
            if not kept:
                self._layer._undo_history.pop()
            self._layer.refresh()

    def _protected(self, history: Sequence[Any]) -> list[tuple[int, Any, Any]]:
        """Return slice, mask and values of what the model's part of the next step must leave."""
        if self._allowed is None or not history:
            return []
        protected = []
        for atom in history[-1]:
            if is_model(atom):
                there = (slice(atom.z, atom.z + 1), slice(None), slice(None))
                values = np.asarray(self._layer.data[there])
                allowed = self._allowed(values, values, there)
                if allowed is not None and not allowed.all():
                    protected.append((atom.z, ~allowed[0], values[0].copy()))
        return protected

    def _put_model_back(self) -> None:
        held, self._held = self._held, []
        for z, mask, values in held:
            np.copyto(self._layer.data[z], values, where=mask)
        if held:
            self._layer.refresh()

    def _on_set_data(self, event: Any = None) -> None:
        layer = self._layer
        undone = len(layer._redo_history)
        more = undone - self._undone
        if not more:
            return
        self._undone = undone
        # napari keeps the atoms of a step in the order in which they were undone or redone
        if more > 0:
            for atoms in list(layer._redo_history)[-more:]:
                self._tell(atoms, "undo", backwards=True)
        else:
            for atoms in list(layer._undo_history)[more:]:
                self._tell(atoms, "redo")

    def _tell(self, atoms: Sequence[Any], tool: str, *, backwards: bool = False) -> None:
        model = [atom.z for atom in atoms if is_model(atom)]
        if model:
            self._put_model_back()
            self._on_model_step(model)
        changes = [parts(atom) for atom in atoms if not is_model(atom)]
        if not changes:
            return
        axes = zip(*(index for index, _, _ in changes), strict=True)
        index = tuple(np.concatenate(axis) for axis in axes)
        before = np.concatenate([new if backwards else old for _, old, new in changes])
        if len(changes) > 1 and not all(hasattr(atom, "slice_key") for atom in atoms):
            # a voxel that a step changed twice was, before the step, what it first was
            flat = np.ravel_multi_index(index, self._layer.data.shape)
            first = np.unique(flat, return_index=True)[1]
            index, before = tuple(axis[first] for axis in index), before[first]
        self._on_change(Change(index, before, tool))


def is_model(atom: Any) -> bool:
    """Return whether an entry of napari's labels history is what a model wrote."""
    return isinstance(atom, SliceChange) and not isinstance(atom, ToolChange)


def parts(atom: Any) -> tuple[Indices, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return (z, y, x), values before and values after of one entry of napari's labels history.

    An entry is a box with a mask (brush, fill, polygon) or a tuple that starts with
    the indices (`Labels.data_setitem`, and this package's own).
    """
    if hasattr(atom, "slice_key"):
        starts = [part.start for part in atom.slice_key]
        shape = [part.stop - part.start for part in atom.slice_key]
        mask = atom.mask if atom.mask is not None else np.ones(shape, bool)
        inside = np.nonzero(np.reshape(mask, shape))
        index = tuple(axis + start for axis, start in zip(inside, starts, strict=True))
        old, new = np.ravel(atom.old_values), atom.new_value
    elif isinstance(atom, SliceChange):
        y, x = np.nonzero(np.asarray(atom.indices[1]))
        index = (np.full(len(y), atom.z), y, x)
        old, new = np.asarray(atom.before), np.asarray(atom.after)
    else:
        index = tuple(np.atleast_1d(np.asarray(axis)) for axis in atom[0])
        old, new = atom[1], atom[2]
    shape = index[0].shape
    return (
        index,
        np.broadcast_to(np.asarray(old, np.uint8), shape),
        np.broadcast_to(np.asarray(new, np.uint8), shape),
    )
