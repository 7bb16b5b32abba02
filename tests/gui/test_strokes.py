"""Labels layers alone: what a person and a model change is told, undone and redone."""

from __future__ import annotations

import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Labels

from napari_covseg.panels.strokes import Strokes
from napari_covseg.panels.undo_entries import Packed, slice_change

SHAPE = (4, 20, 24)


class Change(NamedTuple):
    """What `Strokes` reports of a step."""

    index: tuple[np.ndarray, ...]
    before: np.ndarray
    tool: str
    numbers: tuple[int, ...] = ()


class Told:
    """Remembers what it was told."""

    def __init__(self) -> None:
        self.painted = np.zeros(SHAPE, bool)
        self.changes: list[Change] = []
        self.model: list[int] = []

    def on_change(self, index: Any, before: np.ndarray, tool: str, spread: bool) -> int:
        self.painted[index] = True
        self.changes.append(Change(index, before, tool))
        return len(self.changes)

    def on_taken_back(self, index: Any, before: np.ndarray, numbers: Any, again: bool) -> None:
        self.painted[index] = True
        self.changes.append(Change(index, before, "redo" if again else "undo", tuple(numbers)))

    def last(self) -> tuple[str, np.ndarray]:
        """Return the tool of the last change, and the labels of before put back into nothing."""
        change = self.changes[-1]
        before = np.zeros(SHAPE, np.uint8)
        before[change.index] = change.before
        return change.tool, before

    def on_model_step(self, slices: list[int]) -> None:
        self.model += slices


@pytest.fixture
def layer(make_napari_viewer: Any) -> Labels:
    viewer: Viewer = make_napari_viewer()
    added = viewer.add_labels(np.zeros(SHAPE, np.uint8))
    viewer.dims.set_current_step(0, 1)
    return added


@pytest.fixture
def told() -> Told:
    return Told()


@pytest.fixture
def strokes(layer: Labels, told: Told) -> Strokes:
    return Strokes(layer, told.on_change, told.on_taken_back, told.on_model_step)


def write_as_model(layer: Labels, strokes: Strokes, new: np.ndarray) -> None:
    """Write as the last pass does: first into the data, slice by slice, then into the history."""
    changes = []
    for z in range(len(new)):
        y, x = np.nonzero(layer.data[z] != new[z])
        if len(y):
            indices = (np.full(len(y), z), y, x)
            changes.append(slice_change(SHAPE, indices, layer.data[indices], new[indices]))
            layer.data[indices] = new[indices]
    strokes.add_model_step(changes)


@pytest.mark.parametrize("how", ["brush", "fill", "polygon", "setitem", "erase"])
def test_every_way_to_paint_is_told(layer: Labels, strokes: Strokes, told: Told, how: str) -> None:
    if how == "erase":
        layer.data[:] = 3
    before = layer.data.copy()
    layer.brush_size = 4
    if how in ("brush", "erase"):
        layer.paint((1, 9, 9), 0 if how == "erase" else 2)
    elif how == "fill":
        layer.data[1, 4:8, 4:8] = before[1, 4:8, 4:8] = 5
        layer.fill((1, 5, 5), 2)
    elif how == "polygon":
        layer.paint_polygon([(1, 3, 3), (1, 12, 3), (1, 12, 15)], 2)
    else:
        layer.data_setitem((np.array([1, 2]), np.array([3, 3]), np.array([4, 4])), 2)
    changed = layer.data != before
    assert changed.any()
    assert np.array_equal(told.painted, changed)
    assert not told.model


def test_undo_and_redo_are_told(layer: Labels, strokes: Strokes, told: Told) -> None:
    layer.paint((1, 9, 9), 2)
    first = told.painted.copy()
    told.painted[:] = False
    layer.refresh()
    assert not told.painted.any()  # a redraw is no stroke
    layer.undo()
    assert not layer.data.any()
    assert np.array_equal(told.painted, first)
    told.painted[:] = False
    layer.redo()
    assert np.array_equal(told.painted, first)
    told.painted[:] = False
    assert [change.numbers for change in told.changes[1:]] == [(1,), (1,)]
    layer.undo()
    layer.paint((1, 3, 3), 4)  # clears the redo history
    told.painted[:] = False
    layer.redo()
    assert not told.painted.any()


def test_a_long_drag_is_told_in_parts(
    layer: Labels, strokes: Strokes, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(0, 100, 0.2))
    monkeypatch.setattr("napari_covseg.panels.strokes.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("napari_covseg.panels.strokes.PART", 0.5)
    layer.brush_size = 3
    layer.mode = "paint"
    layer._begin_stroke()
    for x in range(2, 20):
        layer.paint((1, 9, x), 2 + x % 2)  # over what was painted just before
    before = len(told.changes)
    assert before > 3
    layer._commit_stroke()
    assert len(told.changes) == before + 1
    assert np.array_equal(told.painted, layer.data > 0)
    painted = layer.data.copy()
    told.painted[:] = False
    layer.undo()  # one step all the same
    assert not layer.data.any() and np.array_equal(told.painted, painted > 0)
    layer.redo()
    assert np.array_equal(layer.data, painted)


def test_a_redraw_within_a_drag_is_not_taken_for_redoing(layer: Labels, strokes: Strokes, told: Told) -> None:
    layer.brush_size, layer.mode = 3, "paint"
    for y in (4, 9, 14):
        layer.paint((1, y, 9), 2)
    layer.undo()
    layer._begin_stroke()
    layer.paint((1, 14, 15), 3)  # clears the redo history
    layer.refresh()
    layer.paint((1, 14, 18), 3)
    layer._commit_stroke()
    assert [change.tool for change in told.changes] == ["brush"] * 3 + ["undo", "brush"]
    assert set(told.changes[-1].index[2]) == set(np.nonzero(layer.data == 3)[2])


def test_a_drag_that_is_given_up_is_told_to_have_gone(
    layer: Labels, strokes: Strokes, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(np.arange(0, 100, 0.2))
    monkeypatch.setattr("napari_covseg.panels.strokes.time.monotonic", lambda: next(clock))
    monkeypatch.setattr("napari_covseg.panels.strokes.PART", 0.5)
    layer._begin_stroke()
    for x in range(2, 14):
        layer.paint((1, 9, x), 2 + x % 2)
    told_of = told.painted.copy()
    assert told_of.any()
    told.painted[:] = False
    layer._abort_stroke()
    assert not layer.data.any()
    assert np.array_equal(told.painted, told_of) and told.changes[-1].tool == "undo"


def test_a_drag_that_a_model_cuts_short_is_told(layer: Labels, strokes: Strokes, told: Told) -> None:
    layer._begin_stroke()
    layer.paint((1, 9, 9), 2)
    person = layer.data > 0
    after = layer.data.copy()
    after[3, 2:5] = 1
    write_as_model(layer, strokes, after)
    layer.paint((1, 9, 14), 2)
    layer._commit_stroke()
    person |= layer.data == 2
    assert np.array_equal(told.painted, person)


def test_a_models_write_is_one_step(layer: Labels, strokes: Strokes, told: Told) -> None:
    layer.paint((1, 9, 9), 2)
    before = layer.data.copy()
    after = before.copy()
    after[0, 2:9] = 1
    after[1, 5:15, 5:15] = 3
    after[3] = 1
    told.painted[:] = False
    write_as_model(layer, strokes, after)
    assert np.array_equal(layer.data, after)
    assert not told.painted.any() and not told.model  # the case knows of its own merge

    layer.undo()
    assert np.array_equal(layer.data, before)
    assert sorted(told.model) == [0, 1, 3]
    layer.redo()
    assert np.array_equal(layer.data, after)
    layer.undo()
    layer.undo()
    assert not layer.data.any()
    assert not told.painted[[0, 2, 3]].any()


def test_undoing_a_models_write_spares_what_was_painted_during_it(layer: Labels, strokes: Strokes) -> None:
    change = slice_change(
        SHAPE,
        (np.zeros(2, int), np.array([2, 2]), np.array([3, 9])),
        np.zeros(2, np.uint8),
        np.ones(2, np.uint8),
    )
    layer.data[0, 2, [3, 9]] = 1
    layer.data[0, 2, 5] = 4  # a person's voxel between the two
    strokes.add_model_step([change])
    layer.undo()
    assert layer.data[0, 2, 5] == 4
    assert layer.data[0, 2, 3] == layer.data[0, 2, 9] == 0


def test_undoing_a_models_write_leaves_accepted_slices(layer: Labels, told: Told) -> None:
    refused = np.zeros(SHAPE, bool)
    strokes = limits_of(layer, told, refused)
    after = layer.data.copy()
    after[0, 2:9] = 1
    after[1, 5:15, 5:15] = 3
    write_as_model(layer, strokes, after)
    refused[1] = True  # accepted as the model has labelled it
    layer.undo()
    assert not layer.data[0].any() and np.array_equal(layer.data[1], after[1])
    layer.redo()
    assert np.array_equal(layer.data, after)


def test_a_models_write_is_kept_small() -> None:
    values = np.ones((512, 512), np.uint8)
    values[100:300, 80:240] = 2
    packed = Packed(values)
    assert len(pickle.dumps(packed)) < values.nbytes / 50
    assert np.array_equal(np.asarray(packed), values)


def test_nothing_is_told_after_disconnecting(layer: Labels, strokes: Strokes, told: Told) -> None:
    strokes.disconnect()
    layer.paint((1, 9, 9), 2)
    layer.undo()
    assert not told.painted.any()


def test_no_change_is_no_step(layer: Labels, strokes: Strokes) -> None:
    strokes.add_model_step([])
    layer.paint((1, 9, 9), 2)
    layer.undo()
    assert not layer.data.any()


def limits_of(layer: Labels, told: Told, refused: np.ndarray, brushable: np.ndarray | None = None) -> Strokes:
    """Return strokes that refuse voxels."""
    paintable = ~refused if brushable is None else brushable & ~refused
    return Strokes(
        layer,
        told.on_change,
        told.on_taken_back,
        told.on_model_step,
        brushable=lambda before, after, key: paintable[key],
        allowed=lambda before, after, key: ~refused[key],
    )


@pytest.mark.parametrize("how", ["brush", "polygon", "setitem"])
def test_protected_voxels_stay_in_every_way_to_paint(layer: Labels, told: Told, how: str) -> None:
    refused = np.zeros(SHAPE, bool)
    refused[:, :, 10:] = True
    strokes = limits_of(layer, told, refused)
    layer.brush_size = 7
    if how == "brush":
        layer.paint((1, 9, 9), 2)
    elif how == "polygon":
        layer.paint_polygon([(1, 3, 3), (1, 12, 3), (1, 12, 15)], 2)
    else:
        layer.data_setitem((np.array([1, 1]), np.array([3, 3]), np.array([4, 14])), 2)
    after = layer.data.copy()
    assert after.any() and not after[refused].any()
    assert np.array_equal(told.painted, after > 0)
    layer.undo()
    assert not layer.data.any()
    layer.redo()
    assert np.array_equal(layer.data, after)
    strokes.disconnect()
    layer.paint((1, 9, 14), 2)
    assert layer.data[refused].any()


def test_a_step_of_protected_voxels_only_is_no_step(layer: Labels, told: Told) -> None:
    layer.paint((1, 3, 3), 4)
    limits_of(layer, told, np.ones(SHAPE, bool))
    before = layer.data.copy()
    layer.data_setitem((np.array([1]), np.array([9]), np.array([9])), 2)
    layer.paint((1, 12, 12), 2)
    assert np.array_equal(layer.data, before) and not told.changes
    layer.undo()
    assert not layer.data.any()


def test_the_values_before_are_told(layer: Labels, strokes: Strokes, told: Told) -> None:
    layer.data[1, 8:12, 8:12] = 3
    layer.brush_size, layer.mode = 5, "paint"
    original = layer.data.copy()
    layer.paint((1, 9, 9), 2)
    painted = layer.data.copy()
    changed = painted != original
    assert told.last()[0] == "brush"
    assert np.array_equal(told.last()[1], np.where(changed, original, 0))
    layer.undo()
    tool, before = told.last()
    assert tool == "undo" and np.array_equal(before, np.where(changed, painted, 0))
    layer.redo()
    tool, before = told.last()
    assert tool == "redo" and np.array_equal(before, np.where(changed, original, 0))


def test_a_voxel_that_a_step_changed_twice_is_told_once(layer: Labels, strokes: Strokes, told: Told) -> None:
    at = (np.array([1]), np.array([5]), np.array([6]))
    with layer.block_history():
        layer.data_setitem(at, 2)
        layer.data_setitem(at, 3)
    assert told.changes[-1].before.tolist() == [0]
    layer.undo()
    assert layer.data[1, 5, 6] == 0 and told.changes[-1].before.tolist() == [3]


def test_a_tool_writes_one_step_in_any_order_of_voxels(layer: Labels, strokes: Strokes, told: Told) -> None:
    index = tuple(axis[::-1].copy() for axis in np.nonzero(np.ones(SHAPE, bool)))
    before = layer.data[index]
    after = (np.arange(len(before)) % 4 + 1).astype(np.uint8)
    assert strokes.write(index, before, after, "grow") == len(before)
    written = layer.data.copy()
    assert np.array_equal(written[index], after)
    assert told.last()[0] == "grow" and len(told.changes) == 1 and not told.model
    layer.undo()
    assert not layer.data.any() and told.last()[0] == "undo" and not told.model
    layer.redo()
    assert np.array_equal(layer.data, written)


def test_a_tool_that_is_late_spares_what_was_painted_meanwhile(
    layer: Labels, strokes: Strokes, told: Told
) -> None:
    index = (np.array([1, 1]), np.array([5, 5]), np.array([5, 6]))
    before = layer.data[index]
    layer.data[1, 5, 5] = 4
    assert strokes.write(index, before, np.full(2, 2, np.uint8), "grow") == 1
    assert layer.data[1, 5, 5:7].tolist() == [4, 2]
