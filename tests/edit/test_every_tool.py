"""What no tool may do, over all tools and random volumes.

Locked labels and accepted slices never change, nor do labels beside the one that a tool
works on; a tool writes nothing itself, and an edit can be taken back.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

import napari_covseg.edit
from napari_covseg.edit.between import fill_between
from napari_covseg.edit.edit import Edit, Protection
from napari_covseg.edit.grow import grow
from napari_covseg.edit.hu_range import HuRange
from napari_covseg.edit.layers import add, subtract
from napari_covseg.edit.lungs import split_lungs
from napari_covseg.edit.relabel import relabel
from napari_covseg.edit.shape import clip_to_lungs, fill_holes, keep_largest, remove_islands, smooth
from napari_covseg.edit.snap import copy_to
from napari_covseg.errors import EditError

NOT_TOOLS = {"change", "change_at", "guard", "join"}  # what tools are made with


@dataclass(frozen=True, eq=False)
class Case:
    labels: np.ndarray
    voxels: np.ndarray
    other: np.ndarray
    spacing: tuple[float, float, float] | None
    value: int
    point: tuple[int, int, int]
    to: int
    size: float
    volume: bool
    protect: Protection | None

    @property
    def z(self) -> int | None:
        return None if self.volume else self.point[0]


def _grow(case: Case) -> Edit:
    return grow(
        case.labels,
        case.voxels,
        case.point,
        case.value,
        HuRange(-800, 50),
        case.spacing,
        lungs=case.other,
        opening_mm=case.size / 4,
        three_d=case.volume,
        protect=case.protect,
    )


def _between(case: Case, value: int | None) -> Edit:
    return fill_between(case.labels, case.point[0], case.to, case.spacing, value=value, protect=case.protect)


def _copy(case: Case, value: int | None) -> Edit:
    return copy_to(
        case.labels,
        case.voxels,
        case.point[0],
        case.to,
        case.spacing,
        value=value,
        band_mm=case.size,
        protect=case.protect,
    )


# Tools that work on one label change only it and background.
ONE_LABEL: dict[str, Callable[[Case], Edit]] = {
    "grow": _grow,
    "fill_between one label": lambda case: _between(case, case.value),
    "copy_to one label": lambda case: _copy(case, case.value),
    "remove_islands": lambda case: remove_islands(
        case.labels, case.value, 4 * case.size, case.spacing, z=case.z, protect=case.protect
    ),
    "keep_largest": lambda case: keep_largest(case.labels, case.value, z=case.z, protect=case.protect),
    "fill_holes": lambda case: fill_holes(
        case.labels, case.value, case.spacing, z=case.z, protect=case.protect
    ),
    "smooth": lambda case: smooth(
        case.labels, case.value, case.size, case.spacing, z=case.z, protect=case.protect
    ),
    "clip_to_lungs one label": lambda case: clip_to_lungs(
        case.labels, case.other, case.spacing, values=(case.value,), z=case.z, protect=case.protect
    ),
    "add with a label": lambda case: add(
        case.labels, case.other, case.spacing, case.value, z=case.z, protect=case.protect
    ),
    "subtract one label": lambda case: subtract(
        case.labels, case.other, case.value, z=case.z, protect=case.protect
    ),
}
ANY_LABEL: dict[str, Callable[[Case], Edit]] = {
    "fill_between": lambda case: _between(case, None),
    "copy_to": lambda case: _copy(case, None),
    "clip_to_lungs": lambda case: clip_to_lungs(
        case.labels, case.other, case.spacing, z=case.z, protect=case.protect
    ),
    "relabel": lambda case: relabel(
        case.labels, case.point, case.value, three_d=case.volume, protect=case.protect
    ),
    "split_lungs": lambda case: split_lungs(
        case.labels, case.spacing, voxels=case.voxels, z=case.z, protect=case.protect
    ),
    "add": lambda case: add(case.labels, case.other, case.spacing, z=case.z, protect=case.protect),
    "subtract": lambda case: subtract(case.labels, case.other, z=case.z, protect=case.protect),
}
TOOLS = ONE_LABEL | ANY_LABEL


@st.composite
def cases(draw: st.DrawFn) -> Case:
    shape = draw(st.tuples(st.integers(3, 5), st.integers(1, 12), st.integers(1, 12)))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def blobs(count: int) -> np.ndarray:
        grain = ndimage.zoom(random.random([-(-n // 3) for n in shape]), 3, order=0)
        grain = grain[: shape[0], : shape[1], : shape[2]]
        noisy = np.where(random.random(shape) < 0.15, random.random(shape), grain)
        return (noisy * (count + 1)).astype(np.uint8)

    labels, other = blobs(draw(st.integers(1, 4))), blobs(2)
    voxels = (random.normal(-500, 250, shape) + 100.0 * labels).astype(np.int16)
    for array in (labels, other, voxels):
        array.flags.writeable = False  # a tool that wrote into what it was given would raise
    return Case(
        labels=labels,
        voxels=voxels,
        other=other,
        spacing=draw(st.sampled_from([None, (1.0, 1.0, 1.0), (5.0, 0.7, 0.7), (0.6, 0.8, 1.1)])),
        value=draw(st.sampled_from([int(v) for v in np.unique(labels) if v] or [1])),
        point=draw(st.tuples(*(st.integers(0, n - 1) for n in shape))),
        to=draw(st.integers(0, shape[0] - 1)),
        size=draw(st.sampled_from([0.5, 1.0, 2.5, 6.0])),
        volume=draw(st.booleans()),
        protect=Protection(
            frozenset(draw(st.sets(st.integers(0, 4), max_size=2))),
            np.array(draw(st.lists(st.booleans(), min_size=shape[0], max_size=shape[0]))),
        ),
    )


def ran(name: str, case: Case) -> Edit:
    try:
        return TOOLS[name](case)
    except EditError as refused:  # nothing to do here: one sentence says why
        assert str(refused).endswith(".") and "\n" not in str(refused)
        assume(False)
        raise


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=60)
@given(case=cases())
def test_locked_labels_and_accepted_slices_never_change(name: str, case: Case) -> None:
    edit = ran(name, case)
    after = case.labels.copy()
    after[edit.index] = edit.after
    assert case.protect is not None
    accepted, locked = case.protect.accepted, list(case.protect.locked)
    np.testing.assert_array_equal(after[accepted], case.labels[accepted])
    for value in locked:
        np.testing.assert_array_equal(after == value, case.labels == value)
    if name in ONE_LABEL:
        beside = (case.labels != 0) & (case.labels != case.value)
        np.testing.assert_array_equal(after[beside], case.labels[beside])
        assert set(np.unique(after[~beside])) <= {0, case.value}


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=40)
@given(case=cases())
def test_an_edit_tells_each_voxel_once_and_can_be_taken_back(name: str, case: Case) -> None:
    edit = ran(name, case)
    after = case.labels.copy()
    after[edit.index] = edit.after
    changed = after != case.labels
    assert np.count_nonzero(changed) == len(edit) == len(edit.before) == len(edit.after)
    assert edit.slices == np.flatnonzero(changed.any((1, 2))).tolist()
    assert all(axis.dtype == np.intp for axis in edit.index) and edit.tool
    assert (edit.before != edit.after).all() and (case.labels[edit.index] == edit.before).all()
    if not case.volume and "between" not in name:
        assert edit.slices in ([], [case.to if "copy" in name else case.point[0]])
    after[edit.index] = edit.before
    np.testing.assert_array_equal(after, case.labels)


@pytest.mark.parametrize("name", TOOLS)
@settings(max_examples=40)
@given(case=cases())
def test_protection_takes_away_but_changes_nothing_else(name: str, case: Case) -> None:
    """What a tool does elsewhere does not depend on what is protected, and what was held is counted."""
    free, held = ran(name, replace(case, protect=None)), ran(name, case)
    assert case.protect is not None and free.held == 0
    kept = free.only(case.protect.allows(free))
    one, other = case.labels.copy(), case.labels.copy()
    one[kept.index] = kept.after
    other[held.index] = held.after
    np.testing.assert_array_equal(other, one)
    assert held.held == len(free) - len(held)


def test_no_tool_is_left_out() -> None:
    found = set()
    for module in pkgutil.iter_modules(napari_covseg.edit.__path__):
        for name, function in inspect.getmembers(
            importlib.import_module(f"napari_covseg.edit.{module.name}"), inspect.isfunction
        ):
            own = function.__module__ == f"napari_covseg.edit.{module.name}"
            returned = inspect.signature(function).return_annotation
            if own and returned == "Edit" and not name.startswith("_"):
                found.add(name)
    assert found - NOT_TOOLS == {name.split()[0] for name in TOOLS}
