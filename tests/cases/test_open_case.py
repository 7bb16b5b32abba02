"""A case in memory: what a person does is kept, and nothing is kept in memory for longer."""

from __future__ import annotations

import errno
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painting import paint

from napari_covseg.cases import chunks
from napari_covseg.cases.case import Review, Touch
from napari_covseg.cases.merge import writable
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError


@pytest.fixture
def opened(workspace: Workspace, case_id: str) -> Iterator[OpenCase]:
    case = OpenCase(workspace, case_id)
    yield case
    case.close(discard=True)


def test_it_reopens_as_it_was_left(workspace: Workspace, case_id: str, scan: Any) -> None:
    with OpenCase(workspace, case_id) as opened:
        assert opened.revision == 0
        paint(opened, "lesions", np.s_[1, 3:6, 4], 2)
        paint(opened, "lungs", 4, 1)
        opened.set_review(4, Review.ACCEPTED)
        assert opened.revision == 3
    with OpenCase(workspace, case_id) as again:
        assert np.array_equal(again.voxels, scan.voxels)
        assert np.array_equal(again.live["lesions"], opened.live["lesions"])
        assert np.array_equal(again.live["lungs"], opened.live["lungs"])
        assert again.touched["lesions"].sum() == 3
        assert again.touched["lungs"].sum() == opened.live["lungs"][4].size
        assert again.review.tolist() == [0, Review.CORRECTED, 0, 0, Review.ACCEPTED, 0]
        assert again.revision == 3
        assert not again.pending or again.flush() is None


MASK = np.zeros((6, 32, 24), bool)
MASK[[1, 4], 2:5, 3] = True


@pytest.mark.parametrize(
    ("index", "slices"),
    [
        ((np.array([1, 1, 4]), np.array([2, 3, 2]), np.array([3, 3, 3])), [1, 4]),
        (MASK, [1, 4]),
        ((2, slice(3, 6), slice(None)), [2]),
        ((-1, slice(3, 6), 2), [5]),
        (np.s_[1:3], [1, 2]),
        (3, [3]),
        ((np.array([0, 0, 1, 0, 0, 0], bool),), [2]),
        ((2, MASK[1]), [2]),
        (tuple(np.zeros(0, int) for _ in range(3)), []),
    ],
)
def test_what_is_painted_is_the_persons_on_disk_too(opened: OpenCase, index: Any, slices: list[int]) -> None:
    expected = np.zeros(opened.case.shape, bool)
    expected[index] = True
    paint(opened, "lungs", index, 1)
    opened.flush()
    assert np.array_equal(opened.touched["lungs"], expected)
    assert np.array_equal(opened.case.touched("lungs")[:], expected)
    assert np.array_equal(opened.case.labels("lungs")[:] == 1, expected)
    assert np.flatnonzero(opened.review == Review.CORRECTED).tolist() == slices
    assert np.array_equal(opened.case.review, opened.review)


def test_painting_an_accepted_slice_reopens_it(opened: OpenCase) -> None:
    opened.set_review(2, Review.ACCEPTED)
    paint(opened, "lungs", 2)
    assert opened.review[2] == Review.CORRECTED


def painted_back(opened: OpenCase, group: Any, index: Any, number: int, *, again: bool = False) -> None:
    chosen = np.zeros(opened.case.shape, bool)
    chosen[index] = True
    voxels = np.nonzero(chosen)
    before = opened.live[group][voxels]
    opened.live[group][voxels] = 2 if again else 0
    opened.take_back(group, voxels, before, [number], again=again)


@pytest.mark.parametrize("saved", [True, False])
def test_undoing_takes_back_whose_a_voxel_is_and_that_its_slice_is_corrected(
    opened: OpenCase, saved: bool
) -> None:
    opened.live["lungs"][1] = 1
    first = paint(opened, "lesions", np.s_[1, 3:6, 4], 2)
    second = paint(opened, "lesions", np.s_[1:3, 3:9, 4], 2)
    if saved:
        opened.flush()
    painted_back(opened, "lesions", np.s_[1:3, 3:9, 4], second)
    assert opened.touched["lesions"].sum() == 3
    assert opened.review[:3].tolist() == [0, Review.CORRECTED, 0]
    painted_back(opened, "lesions", np.s_[1, 3:6, 4], first)
    assert not opened.touched["lesions"].any() and not opened.review.any()
    painted_back(opened, "lesions", np.s_[1, 3:6, 4], first, again=True)
    assert opened.touched["lesions"].sum() == 3 and opened.review[1] == Review.CORRECTED
    paint(opened, "lungs", np.s_[1, 0, 0], 2)
    painted_back(opened, "lesions", np.s_[1, 3:6, 4], first)
    assert opened.review[1] == Review.CORRECTED  # by its lungs


def test_what_a_tool_spreads_is_neither_nobodys_nor_a_persons(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lesions", np.s_[1, 3:6, 4], 2)
        before = opened.revision
        number = paint(opened, "lesions", np.s_[:4, 3:7, 4], 3, spread=[0, 1, 2])
    with OpenCase(workspace, case_id) as opened:
        states = [Review.SPREAD, Review.CORRECTED, Review.SPREAD, Review.CORRECTED]
        assert opened.review[:4].tolist() == states
        assert (opened.touched["lesions"][:3, 3:7, 4] == Touch.SPREAD).all()
        assert (opened.touched["lesions"][3, 3:7, 4] == Touch.PERSON).all()
        assert not writable(opened.live["lesions"][0] + 1, *array_of(opened, 0), int(opened.review[0]))[4, 4]
        painted_back(opened, "lesions", np.s_[:4, 3:7, 4], number)
        assert opened.review[:4].tolist() == [0, Review.CORRECTED, 0, 0]
        assert np.array_equal(opened.touched["lesions"], opened.state_at(before).touched["lesions"])


def array_of(opened: OpenCase, z: int) -> tuple[Any, Any]:
    return opened.live["lesions"][z], opened.touched["lesions"][z]


def test_undoing_a_models_write_is_saved_and_leaves_no_touch(opened: OpenCase) -> None:
    opened.live["lungs"][2] = 1
    opened.mark_changed("lungs", [2])
    opened.flush()
    assert opened.case.labels("lungs")[2].all()
    assert not opened.touched["lungs"].any()
    assert opened.review[2] == Review.UNTOUCHED
    assert [(one.tool, one.slices) for one in opened.history()] == [("undo", (2,))]


def test_the_revision_is_on_disk_before_the_labels(opened: OpenCase, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.flush()
    order = []
    real = chunks._write_file

    def note(path: str, data: bytes) -> None:
        order.append(Path(path).parent.name)
        real(path, data)

    monkeypatch.setattr(chunks, "_write_file", note)
    paint(opened, "lungs", np.s_[1:3], 1)
    opened.flush()
    assert order == ["revisions", "touched", "touched", "0", "0", "review", "activity"]


@pytest.mark.parametrize("written", range(7))
def test_after_an_error_it_goes_on_where_it_has_failed(
    opened: OpenCase, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    opened.flush()
    order: list[str] = []
    real, full = chunks._write_file, True

    def write(path: str, data: bytes) -> None:
        if full and len(order) == written:
            raise OSError(errno.ENOSPC, "full", path)
        order.append("/".join(Path(path).parts[-2:]).removesuffix(".partial"))
        real(path, data)

    monkeypatch.setattr(chunks, "_write_file", write)
    paint(opened, "lungs", np.s_[1:3], 1)
    for _ in range(2):
        with pytest.raises(CaseError, match="full"):
            opened.flush()
        assert opened.pending and opened.backlog == 0  # nothing gets shorter while the disk is full
        assert len(order) == written
    full = False
    opened.flush()
    names = ["touched/c.1.0.0", "touched/c.2.0.0", "0/c.1.0.0", "0/c.2.0.0", "review/c.0", "activity/c.0"]
    again = ["review/c.0"] if written == 6 else []  # review and activity are written together
    assert order == ["revisions/c.1.0", *names[:5], *again, "activity/c.0"]
    assert not opened.pending and opened.backlog == 0


def test_it_says_how_much_waits(opened: OpenCase, monkeypatch: pytest.MonkeyPatch) -> None:
    opened.flush()
    waits, goes_on = threading.Event(), threading.Event()
    real = chunks._write_file

    def write(path: str, data: bytes) -> None:
        if "revisions" in path:
            waits.set()
            assert goes_on.wait(60)
        real(path, data)

    monkeypatch.setattr(chunks, "_write_file", write)
    paint(opened, "lungs", np.s_[1:3], 1)
    assert waits.wait(60)
    paint(opened, "lungs", np.s_[3:6], 1)
    assert opened.backlog == 2 * 5
    goes_on.set()
    opened.flush()
    assert opened.backlog == 0


def test_only_what_changed_is_written(opened: OpenCase) -> None:
    paint(opened, "lungs", (2, 3, 4), 1)
    opened.flush()
    labels = Path(opened.case.path, "labels")
    assert sorted(str(path.relative_to(labels)) for path in labels.rglob("c.*")) == [
        "lungs/0/c.2.0.0",
        "lungs/touched/c.2.0.0",
    ]


def test_read_only_shows_but_changes_nothing(workspace: Workspace, opened: OpenCase) -> None:
    paint(opened, "lungs", 2, 1)
    opened.flush()
    seen = OpenCase(workspace, opened.id, read_only=True)
    assert np.array_equal(seen.live["lungs"], opened.live["lungs"])
    for change in (
        lambda: paint(seen, "lungs", 0),
        lambda: seen.mark_changed("lungs", [0]),
        lambda: seen.set_review(0, Review.ACCEPTED),
        lambda: seen.merge_slices("any", [0]),
    ):
        with pytest.raises(CaseError, match="read-only"):
            change()
    seen.flush()
    seen.close()


def test_a_closed_case_takes_nothing_more(workspace: Workspace, case_id: str) -> None:
    case = OpenCase(workspace, case_id)
    case.close()
    case.close()
    with pytest.raises(CaseError, match="closed"):
        paint(case, "lungs", 0)


def test_a_closed_case_lets_its_memory_go(workspace: Workspace, case_id: str) -> None:
    told: list[CaseError] = []
    case = OpenCase(workspace, case_id, on_error=told.append)
    paint(case, "lungs", 1)
    arrays = [case.voxels, *case.live.values(), *case.touched.values()]
    held = [weakref.ref(array) for array in arrays]
    gc.collect()
    gc.disable()
    try:
        case.close()
        del case, arrays
        assert [ref() is None for ref in held] == [True] * 5
    finally:
        gc.enable()


def test_a_forgotten_case_is_saved_and_closed(workspace: Workspace, case_id: str) -> None:
    case = OpenCase(workspace, case_id)
    paint(case, "lungs", 2, 1)
    del case
    with OpenCase(workspace, case_id) as again:
        assert again.live["lungs"][2].all()


def test_a_program_that_just_ends_has_saved(workspace: Workspace, case_id: str) -> None:
    script = """
import sys
import numpy as np
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
case = OpenCase(Workspace.open(sys.argv[1]), sys.argv[2])
index = np.nonzero(np.ones((1, 32, 24)))
index = index[0] + 2, *index[1:]
case.live["lungs"][index] = 1
case.record("lungs", index, 0)
"""
    ended = subprocess.run(
        [sys.executable, "-c", script, workspace.path, case_id], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    with OpenCase(workspace, case_id) as again:
        assert again.live["lungs"][2].all()
        assert again.revision == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_labels_take_memory_only_where_there_are_any(workspace: Workspace, scan_maker: Any) -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

    shape = (16, 512, 512)
    case_id = workspace.add_case(scan_maker(shape))
    with OpenCase(workspace, case_id) as opened:
        before = resident()
        for array in (*opened.live.values(), *opened.touched.values()):
            assert not array.any()
        for z in range(16):
            opened.live["lungs"][z, 100:110, 100:110] = 1
            y, x = (axis.ravel() + 100 for axis in np.indices((10, 10)))
            opened.record("lungs", (np.full(100, z), y, x), 0)
        grown = 1024 * (resident() - before)
    one_map = int(np.prod(shape))
    assert grown < one_map // 2  # of four maps
    with OpenCase(workspace, case_id) as again:
        assert again.live["lungs"].sum() == 1600
