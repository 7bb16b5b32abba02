"""An edit says what changes and why not; protection has the last word."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.edit import Edit, Protection, change, change_at, join


def protection(count: int, locked: set[int] = frozenset(), accepted: tuple[int, ...] = ()) -> Protection:  # type: ignore[assignment]
    mask = np.zeros(count, bool)
    mask[list(accepted)] = True
    return Protection(frozenset(locked), mask)


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[:, 1, 1:4] = 1, 2, 3
    return labels


BOX = (slice(1, 3), slice(1, 3), slice(0, 4))


def test_only_what_differs_is_in_an_edit(labels: np.ndarray) -> None:
    after = np.zeros((2, 2, 4), np.uint8)
    after[0, 0, 2] = 2  # as it was
    after[1, 1, 3] = 7
    edit = change(labels, BOX, after, "test")
    got = set(zip(*(axis.tolist() for axis in (*edit.index, edit.before, edit.after)), strict=True))
    assert got == {
        (1, 1, 1, 1, 0),
        (1, 1, 3, 3, 0),
        (2, 1, 1, 1, 0),
        (2, 1, 2, 2, 0),
        (2, 1, 3, 3, 0),
        (2, 2, 3, 0, 7),
    }
    assert all(axis.dtype == np.intp for axis in edit.index)
    assert edit.before.dtype == edit.after.dtype == np.uint8
    assert edit.slices == [1, 2] and len(edit) == 6 and edit.tool == "test" and edit.held == 0


def test_an_edit_is_written_and_taken_back(labels: np.ndarray) -> None:
    kept = labels.copy()
    edit = change_at(labels, (np.array([0, 0, 2]), np.array([1, 1, 0]), np.array([1, 2, 0])), 2, "test")
    assert len(edit) == 2  # one of the three was 2 before
    labels[edit.index] = edit.after
    assert labels[0, 1, 1] == labels[2, 0, 0] == 2
    assert np.count_nonzero(labels != kept) == 2
    labels[edit.index] = edit.before
    np.testing.assert_array_equal(labels, kept)


def test_locked_labels_neither_go_nor_come_and_accepted_slices_stay(labels: np.ndarray) -> None:
    after = np.full((2, 2, 4), 3, np.uint8)
    assert len(change(labels, BOX, after, "test", protection(3, locked={3}))) == 0
    away = change(labels, BOX, np.zeros_like(after), "test", protection(3, {2}, accepted=(2,)))
    assert set(zip(away.index[0].tolist(), away.before.tolist(), strict=True)) == {(1, 1), (1, 3)}
    assert away.held == 4  # the 2 on slice 1 and all three on slice 2


def test_what_a_tool_does_not_paint_over_is_not_counted_as_held(labels: np.ndarray) -> None:
    edit = change(labels, BOX, np.full((2, 2, 4), 9, np.uint8), "test", protection(3), over=(0, 1))
    assert set(edit.before.tolist()) == {0, 1} and edit.held == 0


def test_edits_are_joined(labels: np.ndarray) -> None:
    one = change_at(
        labels, (np.array([0]), np.array([0]), np.array([0])), 1, "a", protection(3, accepted=(0,))
    )
    other = change_at(labels, (np.array([1]), np.array([0]), np.array([0])), 1, "b")
    joined = join([one, other], "both")
    assert joined.slices == [1] and joined.held == 1 and joined.tool == "both"
    empty = join([], "none")
    labels[empty.index] = empty.after
    assert len(empty) == 0 and empty.slices == []


def test_part_of_an_edit(labels: np.ndarray) -> None:
    edit: Edit = change(labels, BOX, np.zeros((2, 2, 4), np.uint8), "test")
    part = edit.only(edit.before == 3)
    assert part.before.tolist() == [3, 3] and part.slices == [1, 2]
