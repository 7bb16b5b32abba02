"""Follows what a person, and what a model, changes in a labels layer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
from napari.layers import Labels

from napari_covseg.panels.napari_private import (
    ABORT,
    PAINT,
    SAVE,
    add_entry,
    is_in_step,
    redo_history,
    staged_history,
    undo_history,
    unwrap,
    wrap,
)
from napari_covseg.panels.undo_entries import SliceChange, ToolChange, tool_changes

Indices = tuple[npt.NDArray[np.intp], ...]
Allowed = Callable[[npt.NDArray[np.uint8], Any, Any], "npt.NDArray[np.bool_] | None"]
OnChange = Callable[[Indices, npt.NDArray[np.uint8], str, bool], int]
OnTakenBack = Callable[[Indices, npt.NDArray[np.uint8], Sequence[int], bool], None]
PART = 0.5  # seconds of a drag that are reported before it ends: a crash takes no more with it
TOOL_OF_MODE = {"paint": "brush", "erase": "eraser", "fill": "fill", "polygon": "polygon"}


class Strokes:
    """Reports every voxel that a person paints, erases, undoes or redoes, and limits where.

    napari emits ``paint`` when something is painted, but for undo and redo only
    ``set_data``, the event of any redraw; the length of the redo history tells them apart.

    Parameters
    ----------
    layer : Labels
    on_change : callable
        Takes what each step that a person made has changed: (z, y, x) of the voxels, each once;
        their values before, as those after are in the layer; the tool; and whether it has spread
        over what the person does not see. Returns the number of the revision that this is.
    on_taken_back : callable
        Takes what undoing or redoing a step has changed: voxels and values before likewise; the
        numbers of the revisions that the step was; and whether it was redone.
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
        on_change: OnChange,
        on_taken_back: OnTakenBack,
        on_model_step: Callable[[list[int]], None],
        brushable: Allowed | None = None,
        allowed: Allowed | None = None,
    ) -> None:
        self._layer = layer
        self._on_change = on_change
        self._on_taken_back = on_taken_back
        self._numbers: list[int] = []  # of the revisions that the drag was so far
        self._revisions: dict[int, tuple[Any, list[int]]] = {}  # by id: an entry of a step, and what it was
        self._on_model_step = on_model_step
        self._brushable = brushable
        self._allowed = allowed
        self._undone = len(redo_history(layer))
        self._reported, self._since = 0, 0.0  # of the drag: how many of its entries, and when
        self._held: list[tuple[int, Any, Any]] = []  # what a model's step must not take back or bring
        self.brush = ""  # what the brush is called while it is limited
        layer.events.paint.connect(self._on_paint)
        layer.events.set_data.connect(self._on_set_data)
        for name, wrapper in self._wrappers().items():
            wrap(layer, name, wrapper)

    def disconnect(self) -> None:
        """Stop following the layer."""
        self._layer.events.paint.disconnect(self._on_paint)
        self._layer.events.set_data.disconnect(self._on_set_data)
        unwrap(self._layer, *self._wrappers())

    def add_model_step(self, changes: Sequence[SliceChange]) -> None:
        """Make what a model has written already one step that Ctrl+Z takes back.

        Parameters
        ----------
        changes : sequence of SliceChange
            One per slice.
        """
        if not changes:
            return
        self.add_step(changes, [])

    def add_step(self, changes: Sequence[SliceChange], numbers: Sequence[int]) -> None:
        """Make what is written and reported already one step that Ctrl+Z takes back.

        Parameters
        ----------
        changes : sequence of SliceChange
            One per slice; not none.
        numbers : sequence of int
            Of the revisions that a person's step is.
        """
        # `data_setitem`, the public way, keeps 25 bytes a voxel; a last pass over a scan
        # would cost more memory than the scan, and a second of standstill
        with self._layer.block_history():
            for change in changes:
                add_entry(self._layer, change)
        self._remember(changes, list(numbers))

    def write(
        self,
        index: Indices,
        before: npt.NDArray[np.uint8],
        after: npt.NDArray[np.uint8],
        tool: str,
        *,
        spread: bool = False,
    ) -> int:
        """Change voxels as one step of a person, and report it.

        Voxels that have changed since `before` was read are passed over.

        Parameters
        ----------
        index : tuple of ndarray
            (z, y, x) of the voxels, each once.
        before, after : ndarray of uint8
            Their values.
        tool : str
            What they are changed with.
        spread : bool
            Whether the tool has spread them over what the person does not see.

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
        changes = tool_changes(data.shape, index, before, after, tool)
        self.add_step(changes, [self._on_change(index, before, tool, spread)])
        self._layer.refresh(thumbnail=False, highlight=False, extent=False)
        return len(before)

    def _wrappers(self) -> dict[str, Callable[..., Any]]:
        """Return what goes before the methods through which all painting, undoing and redoing goes.

        napari tells of a step that is not a drag before it has written it; in a block of
        history it tells afterwards. Of undoing it tells only once that is done.
        """
        return {
            PAINT: self._paint,
            SAVE: self._save,
            ABORT: self._abort,
            "data_setitem": self._set_data,
            "undo": self._undo,
            "redo": self._redo,
        }

    def _paint(self, paint: Callable[..., Any], data: Any, mask: Any, new_label: int, place: Any) -> Any:
        allowed = None if self._brushable is None else self._brushable(data, new_label, place)
        if allowed is not None:
            mask = mask & allowed
        with self._one_step():
            painted = paint(data, mask, new_label, place)
        self._report_part()
        return painted

    def _set_data(self, set_data: Callable[..., None], *args: Any, **kwargs: Any) -> None:
        with self._one_step():
            set_data(*args, **kwargs)

    def _save(self, save: Callable[[Any], None], entry: Any) -> None:
        save(entry)
        # painting clears what could be redone: a redraw within a drag must not take that for redoing
        self._undone = len(redo_history(self._layer))

    def _undo(self, undo: Callable[[], None]) -> None:
        self._held = self._protected(undo_history(self._layer))
        undo()

    def _redo(self, redo: Callable[[], None]) -> None:
        self._held = self._protected(redo_history(self._layer))
        redo()

    def _abort(self, abort: Callable[[], None]) -> None:
        reported, self._reported = staged_history(self._layer)[: self._reported], 0
        abort()
        numbers, self._numbers = self._numbers, []
        if reported:
            self._report_taken_back(reported[::-1], numbers, again=False)

    def _remember(self, entries: Sequence[Any], numbers: list[int]) -> None:
        """Keep which revisions a step was for as long as it can be undone or redone."""
        steps = [step for history in (undo_history, redo_history) for step in history(self._layer)]
        alive = {id(entry) for step in steps if len(step) for entry in (step[0], step[-1])}
        self._revisions = {key: known for key, known in self._revisions.items() if key in alive}
        if len(entries) and numbers:
            self._revisions[id(entries[0])] = entries[0], numbers

    def _revisions_of(self, entries: Sequence[Any]) -> list[int]:
        # napari keeps them in the order in which they were undone or redone
        for entry in (entries[0], entries[-1]):
            if id(entry) in self._revisions:
                return self._revisions[id(entry)][1]
        return []

    def _one_step(self) -> AbstractContextManager[None]:
        # a block within a drag's would end the drag's step early
        return nullcontext() if is_in_step(self._layer) else self._layer.block_history()

    def _on_paint(self, event: Any) -> None:
        self._undone = len(redo_history(self._layer))
        reported, self._reported = self._reported, 0
        entries = event.value
        if any(isinstance(entry, SliceChange) for entry in entries):
            # who wrote those knows; but a model may write in the middle of a drag, which napari then ends
            entries = [entry for entry in entries if not isinstance(entry, SliceChange)]
        else:
            self._put_back(entries)
        if entries[reported:]:
            self._report(entries[reported:])
        numbers, self._numbers = self._numbers, []
        self._remember(entries, numbers)

    def _report_part(self) -> None:
        """Report what a drag has painted so far, every now and then."""
        layer = self._layer
        if not is_in_step(layer):
            return
        now, staged = time.monotonic(), staged_history(layer)
        if len(staged) <= 1:
            self._since = now  # it has just begun
        elif now - self._since >= PART:
            self._report(staged[self._reported :])
            self._reported, self._since = len(staged), now

    def _tool(self) -> str:
        mode = str(self._layer.mode)
        tool = TOOL_OF_MODE.get(mode, "painting")
        return f"{self.brush} {tool}" if self.brush and mode in ("paint", "erase") else tool

    def _put_back(self, entries: list[Any]) -> None:
        """Restore protected voxels of a step, and leave the rest as the step."""
        if self._allowed is None:
            return
        kept, refused = [], False
        for entry in entries:
            index, before, after = parts(entry)
            allowed = self._allowed(before, after, index)
            if allowed is None or allowed.all():
                kept.append(entry)
                continue
            refused = True
            self._layer.data[tuple(axis[~allowed] for axis in index)] = before[~allowed]
            if allowed.any():
                left = tuple(axis[allowed] for axis in index)
                kept.append((left, before[allowed], after[allowed]))
        if refused:
            entries[:] = kept
            if not kept:
                undo_history(self._layer).pop()
            self._layer.refresh()

    def _protected(self, history: Sequence[Any]) -> list[tuple[int, Any, Any]]:
        """Return slice, mask and values of what the model's part of the next step must leave."""
        if self._allowed is None or not history:
            return []
        protected = []
        for entry in history[-1]:
            if is_model(entry):
                there = (slice(entry.z, entry.z + 1), slice(None), slice(None))
                values = np.asarray(self._layer.data[there])
                allowed = self._allowed(values, values, there)
                if allowed is not None and not allowed.all():
                    protected.append((entry.z, ~allowed[0], values[0].copy()))
        return protected

    def _put_model_back(self) -> None:
        held, self._held = self._held, []
        for z, mask, values in held:
            np.copyto(self._layer.data[z], values, where=mask)
        if held:
            self._layer.refresh()

    def _on_set_data(self, event: Any = None) -> None:
        layer = self._layer
        undone = len(redo_history(layer))
        more = undone - self._undone
        if not more:
            return
        self._undone = undone
        # napari keeps the entries of a step in the order in which they were undone or redone
        if more > 0:
            for entries in list(redo_history(layer))[-more:]:
                self._report_taken_back(entries, self._revisions_of(entries), again=False)
        else:
            for entries in list(undo_history(layer))[more:]:
                self._report_taken_back(entries, self._revisions_of(entries), again=True)

    def _report(self, entries: Sequence[Any]) -> None:
        found = self._changes(entries)
        if found is not None:
            self._numbers.append(self._on_change(*found, self._tool(), False))

    def _report_taken_back(self, entries: Sequence[Any], numbers: Sequence[int], *, again: bool) -> None:
        model = [entry.z for entry in entries if is_model(entry)]
        if model:
            self._put_model_back()
            self._on_model_step(model)
        found = self._changes(entries, backwards=not again)
        if found is not None:
            self._on_taken_back(*found, numbers, again)

    def _changes(
        self, entries: Sequence[Any], *, backwards: bool = False
    ) -> tuple[Indices, npt.NDArray[np.uint8]] | None:
        """Return where a person's entries have changed the layer, and what was there; None if nowhere."""
        changes = [parts(entry) for entry in entries if not is_model(entry)]
        if not changes:
            return None
        axes = zip(*(index for index, _, _ in changes), strict=True)
        index = tuple(np.concatenate(axis) for axis in axes)
        before = np.concatenate([new if backwards else old for _, old, new in changes])
        if len(changes) > 1 and not all(hasattr(entry, "slice_key") for entry in entries):
            # a voxel that a step changed twice was, before the step, what it first was
            flat = np.ravel_multi_index(index, self._layer.data.shape)
            first = np.unique(flat, return_index=True)[1]
            index, before = tuple(axis[first] for axis in index), before[first]
        return index, before


def is_model(entry: Any) -> bool:
    """Return whether an entry of napari's labels history is what a model wrote."""
    return isinstance(entry, SliceChange) and not isinstance(entry, ToolChange)


def parts(entry: Any) -> tuple[Indices, npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Return (z, y, x), values before and values after of one entry of napari's labels history.

    An entry is a box with a mask (brush, fill, polygon) or a tuple that starts with
    the indices (`Labels.data_setitem`, and this package's own).
    """
    if hasattr(entry, "slice_key"):
        starts = [part.start for part in entry.slice_key]
        shape = [part.stop - part.start for part in entry.slice_key]
        mask = entry.mask if entry.mask is not None else np.ones(shape, bool)
        inside = np.nonzero(np.reshape(mask, shape))
        index = tuple(axis + start for axis, start in zip(inside, starts, strict=True))
        old, new = np.ravel(entry.old_values), entry.new_value
    elif isinstance(entry, SliceChange):
        y, x = np.nonzero(np.asarray(entry.indices[1]))
        index = (np.full(len(y), entry.z), y, x)
        old, new = np.asarray(entry.before), np.asarray(entry.after)
    else:
        index = tuple(np.atleast_1d(np.asarray(axis)) for axis in entry[0])
        old, new = entry[1], entry[2]
    shape = index[0].shape
    return (
        index,
        np.broadcast_to(np.asarray(old, np.uint8), shape),
        np.broadcast_to(np.asarray(new, np.uint8), shape),
    )
