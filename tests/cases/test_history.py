"""Whatever happens to a case, every state that it was in can be seen again, whatever crashes."""

from __future__ import annotations

import csv
import errno
import shutil
from collections import defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_covseg.cases import chunks
from napari_covseg.cases import history as history_module
from napari_covseg.cases.case import Review
from napari_covseg.cases.history import write_csv
from napari_covseg.cases.merge import merge_prediction
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.store import FORMAT, read_row, write_row
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS

SHAPE = (3, 8, 6)


@dataclass
class Copy:
    """All that a revision can change."""

    arrays: list[Any]

    @classmethod
    def of(cls, state: Any) -> Copy:
        labels = state.live if isinstance(state, OpenCase) else state.labels
        arrays = [*labels.values(), *state.touched.values(), state.review]
        return cls([array.copy() for array in arrays])

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, Copy)
        return all(np.array_equal(one, two) for one, two in zip(self.arrays, other.arrays, strict=True))


def paint(opened: OpenCase, group: Any, box: Any, value: int, **how: Any) -> int:
    index = np.nonzero(np.ones([size for _, size in box], bool))
    index = tuple(
        (axis + start) % size for axis, (start, _), size in zip(index, box, opened.case.shape, strict=True)
    )
    before = opened.live[group][index]
    opened.live[group][index] = value
    return opened.record(group, index, before, **how)


def predict(workspace: Workspace, case_id: str, value: int) -> str:
    case = workspace.case(case_id)
    run = case.begin_prediction("m", {}, ["lungs"], 0, probabilities=False)
    for z in range(case.shape[0]):
        full = np.full(case.shape[1:], value, np.uint8)
        full[: z + 1] = 0
        run.write_slice(z, full, full.T.reshape(full.shape))
    return run.id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scan_maker: Any) -> tuple[Workspace, str]:
    workspace = Workspace.open(tmp_path_factory.mktemp("history") / "w")
    return workspace, workspace.add_case(scan_maker(SHAPE))


def copied(workspace: Workspace, template: str) -> str:
    case_id = f"{template}-{uuid4().hex}"
    cases = Path(workspace.path, "cases")
    shutil.copytree(cases / template, cases / case_id)
    return case_id


boxes = st.tuples(*(st.tuples(st.integers(0, size - 1), st.integers(1, size)) for size in SHAPE))
groups = st.sampled_from(list(GROUPS))
doings = st.one_of(
    st.tuples(st.just("brush"), groups, boxes, st.integers(0, 3)),
    st.tuples(st.just("undo"), groups, boxes, st.integers(0, 3)),
    st.tuples(st.just("slices"), groups, st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("merge"), st.integers(0, 3), st.lists(st.integers(0, 2), min_size=1, max_size=3)),
    st.tuples(st.just("review"), st.integers(0, 2), st.sampled_from(list(Review))),
    st.tuples(st.just("restore"), st.integers(0, 99)),
    st.tuples(st.just("flush")),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("merge on disk"), st.integers(0, 3)),
)


def do(opened: OpenCase, workspace: Workspace, what: str, details: list[Any]) -> None:
    if what in ("brush", "undo"):
        group, box, value = details
        paint(opened, group, box, value, tool=what, touch=what == "brush")
    elif what == "slices":
        group, z, value = details
        opened.live[group][z, 2:5] = value
        opened.mark_changed(group, [z])
        opened.flush()  # what else happens to the slice would be part of it
    elif what == "merge":
        opened.merge_slices(predict(workspace, opened.id, details[0]), details[1])
    elif what == "review":
        opened.set_review(*details)
    elif what == "restore":
        opened.restore(details[0] % (opened.revision + 1))
    elif what == "flush":
        opened.flush()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(doings, max_size=14))
def test_each_state_can_be_seen_again(made: tuple[Workspace, str], story: list[Any]) -> None:
    workspace, case_id = made[0], copied(*made)
    opened = OpenCase(workspace, case_id)
    known = {0: Copy.of(opened)}
    for what, *details in story:
        if what in ("reopen", "merge on disk"):
            opened.close()
            if what == "merge on disk":
                case = workspace.case(case_id)
                merge_prediction(case, case.prediction(predict(workspace, case_id, details[0])))
            opened = OpenCase(workspace, case_id)
            assert opened.revision == max(known) or what == "merge on disk"
        else:
            do(opened, workspace, what, details)
        known[opened.revision] = Copy.of(opened)
    assert [one.number for one in opened.history()] == list(range(1, opened.revision + 1))
    for number in range(opened.revision + 1):
        state = opened.state_at(number)
        assert not state.missing
        if number in known:
            assert Copy.of(state) == known[number]
    opened.close()
    with OpenCase(workspace, case_id) as again:
        assert Copy.of(again) == known[again.revision]
        for number, copy in known.items():
            assert Copy.of(again.state_at(number)) == copy


@pytest.fixture(scope="module")
def predicted(made: tuple[Workspace, str]) -> tuple[str, list[str]]:
    """A case that was open before, and its predictions of each value: copied faster than made."""
    workspace, case_id = made[0], copied(*made)
    OpenCase(workspace, case_id).close()
    return case_id, [predict(workspace, case_id, value) for value in range(4)]


class Killed(Exception):
    """Stands for the end of the process: nothing is written after it."""


class Disk:
    """Writes until it is told to stop, as a killed process does."""

    def __init__(self) -> None:
        self.left = 10**9
        self.real = chunks._write_file

    def write(self, path: str, data: bytes) -> None:
        self.left -= 1
        if self.left < 0:
            raise OSError(errno.EIO, "killed", path)
        self.real(path, data)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(doings, min_size=1, max_size=12), st.integers(0, 60), st.randoms(use_true_random=False))
def test_killed_between_any_two_files_it_is_as_after_the_last_whole_revision(
    made: tuple[Workspace, str],
    predicted: tuple[str, list[str]],
    story: list[Any],
    moment: int,
    random: Any,
) -> None:
    workspace, (template, runs) = made[0], predicted
    case_id = copied(workspace, template)
    opened = OpenCase(workspace, case_id)
    opened.flush()
    disk = Disk()
    known = defaultdict(list, {0: [Copy.of(opened)]})  # a merge grows, and may be killed at any size
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_write_file", disk.write)
        disk.left = moment
        try:
            for what, *details in story:
                if what == "reopen":
                    opened.close()
                    opened = OpenCase(workspace, case_id)
                elif what == "merge":
                    for z in details[1]:
                        opened.merge_slices(runs[details[0]], [z])
                        known[opened.revision].append(Copy.of(opened))
                elif what != "merge on disk":
                    do(opened, workspace, what, details)
                known[opened.revision].append(Copy.of(opened))
                if random.random() < 0.5:
                    opened.flush()
            opened.close()
        except CaseError:
            known[opened.revision].append(Copy.of(opened))
            opened.close(discard=True)
    with OpenCase(workspace, case_id) as again:
        assert not again.damaged
        assert Copy.of(again) in known[again.revision]
        again.flush()
        for number in range(again.revision + 1):
            assert Copy.of(again.state_at(number)) in known[number]
        paint(again, "lungs", ((0, 1), (0, 1), (0, 1)), 7)
        last, now_is = again.revision, Copy.of(again)
    with OpenCase(workspace, case_id) as again:
        assert again.revision == last
        assert Copy.of(again) == now_is


@pytest.fixture
def strokes(workspace: Workspace, case_id: str) -> tuple[Workspace, str]:
    """A case with five strokes, of which none is compacted, as a killed program leaves it."""
    opened = OpenCase(workspace, case_id)
    for z in range(5):
        paint(opened, "lesions", ((z, 1), (2, 9), (3, 11)), z + 1)
    opened.flush()
    opened.log.history.compact = lambda: None  # type: ignore[method-assign]
    opened.close()
    return workspace, case_id


@pytest.mark.parametrize("how", ["cut", "empty", "flipped", "missing"])
@pytest.mark.parametrize("number", [3, 5])
def test_a_revision_that_is_torn_is_passed_over(
    strokes: tuple[Workspace, str], number: int, how: str
) -> None:
    workspace, case_id = strokes
    path = Path(workspace.case(case_id).path, f"history/revisions/c.{number}.0")
    data = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
        path.write_bytes({"cut": data[: len(data) // 2], "empty": b"", "flipped": flipped}[how])
    damaged = path.read_bytes() if path.exists() else None
    others = [other for other in range(1, 6) if other != number]
    for again in range(3):
        with OpenCase(workspace, case_id) as opened:
            assert opened.revision == 5 + again
            assert [one.number for one in opened.history()][:4] == others
            assert [int(opened.live["lesions"][z].max()) for z in range(5)] == [1, 2, 3, 4, 5]
            state = opened.state_at(number - 1)
            assert state.missing == (number,)
            assert state.labels["lesions"][: number - 1].any((1, 2)).all()
            assert not state.labels["lesions"][number:].any()
            assert opened.state_at(number).missing == ()
            opened.set_review(5, Review((again + 1) % 4))
        assert (path.read_bytes() if path.exists() else None) == damaged
        strokes_left = [int(one.name.split(".")[1]) for one in path.parent.glob("c.*")]
        assert strokes_left == ([number] if path.exists() else [])


@pytest.mark.parametrize(("name", "calls"), [("write_row", 1), ("to_disk", 1), ("remove_chunk", 5)])
def test_compacting_can_be_interrupted_at_any_moment(
    strokes: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch, name: str, calls: int
) -> None:
    workspace, template = strokes
    cases = Path(workspace.path, "cases")
    real = getattr(history_module, name)

    for moment in range(calls + 1):
        left = iter(range(moment))

        def die(*args: Any, left: Iterator[int] = left) -> Any:
            if next(left, None) is None:
                raise Killed
            return real(*args)

        case_id = f"{template}-{moment}"
        shutil.copytree(cases / template, cases / case_id)
        opened = OpenCase(workspace, case_id)
        opened.flush()
        with monkeypatch.context() as patch:
            patch.setattr(history_module, name, die)
            # there is no further moment than these
            with pytest.raises(Killed) if moment < calls else nullcontext():
                opened.log.history.compact()
        opened.log.history.compact = lambda: None  # type: ignore[method-assign]
        opened.close()
        for session in range(2):
            with OpenCase(workspace, case_id) as again:
                assert [one.number for one in again.history()] == list(range(1, 6 + session))
                for number in range(6):
                    labels = again.state_at(number).labels["lesions"]
                    assert [int(labels[z].max()) for z in range(5)] == [
                        z + 1 if z < number else 0 for z in range(5)
                    ]
                again.set_review(0, Review.ACCEPTED)
        assert not list(Path(workspace.case(case_id).path, "history/revisions").glob("c.*"))


def test_a_disk_that_is_full_for_compacting_does_not_keep_a_case_open(
    strokes: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, case_id = strokes
    opened = OpenCase(workspace, case_id)
    opened.flush()
    with monkeypatch.context() as patch:
        disk = Disk()
        disk.left = 0
        patch.setattr(chunks, "_write_file", disk.write)
        opened.close()
    with OpenCase(workspace, case_id) as again:
        assert len(again.history()) == 5


def test_half_of_a_session_s_damage_leaves_the_other_half(strokes: tuple[Workspace, str]) -> None:
    workspace, case_id = strokes
    with OpenCase(workspace, case_id) as opened:
        whole = opened.log.history.read(3).encode()
    row = Path(workspace.case(case_id).path, "history/sessions/c.5.0")
    array = workspace.case(case_id).array("history/sessions")
    data = bytearray(read_row(array, 5))
    data[data.find(whole) + 30] ^= 1
    write_row(array, 5, bytes(data), "it")
    with OpenCase(workspace, case_id, read_only=True) as again:
        assert [one.number for one in again.history()] == [1, 2, 4, 5]
        assert again.state_at(3).labels["lesions"][2].any()
    row.write_bytes(b"")
    with OpenCase(workspace, case_id) as again:
        assert again.history() == []
        assert again.revision == 5
        assert again.live["lesions"][4].any()
        assert paint(again, "lungs", ((0, 1), (0, 1), (0, 1)), 7) == 6


def test_a_case_from_before_there_was_a_history(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        for value in (1, 2):
            paint(opened, "lungs", ((2, 1), (2, 9), (3, 11)), value)
    shutil.rmtree(Path(workspace.case(case_id).path, "history"))
    with OpenCase(workspace, case_id, read_only=True) as seen:
        assert (seen.history(), seen.revision) == ([], 2)
    with OpenCase(workspace, case_id) as opened:
        old = Copy.of(opened)
        assert paint(opened, "lungs", ((2, 1), (2, 9), (3, 11)), 3) == 3
        assert Copy.of(opened.state_at(2)) == old
        with pytest.raises(CaseError, match=r"no revision 1: choose one from 2 to 3"):
            opened.state_at(1)
    with OpenCase(workspace, case_id) as opened:
        assert Copy.of(opened.state_at(2)) == old
        assert [one.number for one in opened.history()] == [3]


def test_restoring_is_a_revision_and_can_be_taken_back(strokes: tuple[Workspace, str]) -> None:
    workspace, case_id = strokes
    with OpenCase(workspace, case_id, who="Ada") as opened:
        now_is = Copy.of(opened)
        changes = opened.restore(3)
        assert [(one.group, one.z, len(one.before)) for one in changes] == [
            ("lesions", 3, 99),
            ("lesions", 4, 99),
        ]
        for one in changes:
            assert (opened.live["lesions"][one.index] == one.after).all()
        assert opened.review.tolist() == [2, 2, 2, 0, 0, 0]
        assert not opened.touched["lesions"][3:].any()
        last = opened.history()[-1]
        assert (last.number, last.tool, last.who, last.note) == (6, "restore", "Ada", "revision 3")
        opened.restore(5)
        assert Copy.of(opened) == now_is
    with OpenCase(workspace, case_id) as opened:
        assert Copy.of(opened) == now_is
        assert len(opened.history()) == 7


def test_what_is_known_of_a_revision(workspace: Workspace, case_id: str, tmp_path: Path) -> None:
    with OpenCase(workspace, case_id, who="=Ada") as opened:
        paint(opened, "lesions", ((1, 2), (2, 3), (3, 4)), 2, tool="fill")
        opened.flush()
        opened.who = ""
        opened.set_review(4, Review.ACCEPTED)
        opened.merge_slices(predict(workspace, case_id, 1), [3, 4, 0])
        expected = opened.history()
        fill, review, merge = expected
        assert (fill.tool, fill.who, fill.groups, fill.slices, fill.voxels) == (
            "fill",
            "=Ada",
            ("lesions",),
            (1, 2),
            24,
        )
        assert (review.tool, review.who, review.slices, review.voxels) == ("review", "user", (4,), 0)
        assert (merge.tool, merge.who, merge.slices) == ("merge", "m", (0, 3))
        assert merge.prediction_id == opened.case.predictions()[0].id
        write_csv(opened.history(), tmp_path / "audit.csv")
    with OpenCase(workspace, case_id) as again:
        assert again.history() == expected
    with open(tmp_path / "audit.csv", encoding="utf-8-sig", newline="") as file:
        table = list(csv.DictReader(file))
    assert [row["number"] for row in table] == ["1", "2", "3"]
    assert [row["who"] for row in table] == ["'=Ada", "user", "m"]  # nothing that a spreadsheet runs
    assert table[0]["slices"] == "2 3" and table[0]["when"] == fill.when.isoformat()
    with pytest.raises(CaseError, match="is not saved"), OpenCase(workspace, case_id) as it:
        write_csv(it.history(), tmp_path / "no/such/folder.csv")


def test_an_audit_trail_is_there_whole_or_not_at_all(
    workspace: Workspace, case_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with OpenCase(workspace, case_id) as opened:
        opened.set_review(4, Review.ACCEPTED)
        (tmp_path / "audit.csv").write_text("that of yesterday")

        def full(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("os.fsync", full)
        with pytest.raises(CaseError, match=r"The disk is full, the history of .*audit\.csv is not saved"):
            write_csv(opened.history(), tmp_path / "audit.csv")
        monkeypatch.undo()
    assert (tmp_path / "audit.csv").read_text() == "that of yesterday"


def test_of_a_voxel_that_is_told_twice_the_first_value_counts(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        opened.live["lungs"][1, 2, 3:5] = 9
        index = tuple(np.array(axis) for axis in ((1, 1, 1), (2, 2, 2), (4, 3, 4)))
        opened.record("lungs", index, np.array([0, 0, 5], np.uint8))
        assert not opened.state_at(0).labels["lungs"].any()
        assert opened.history()[0].voxels == 2


def test_what_another_plugin_wrote_is_found_when_the_case_closes(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        opened.live["lungs"][1, 2, 3:5] = 9
    with OpenCase(workspace, case_id) as again:
        assert (again.live["lungs"][1, 2, 3:5] == 9).all()
        assert again.touched["lungs"].sum() == 2
        assert [(one.tool, one.voxels) for one in again.history()] == [("outside", 2)]


def test_a_stroke_that_is_not_finished_is_not_on_disk(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lungs", ((1, 1), (2, 3), (3, 4)), 1)
        opened.live["lungs"][1, 20] = 9  # the mouse is still down
        opened.flush()
        seen = OpenCase(workspace, case_id, read_only=True)
        assert (seen.live["lungs"][1] == 9).sum() == 0
        assert (seen.live["lungs"][1] == 1).sum() == 12
        opened.live["lungs"][1, 20] = 0


def test_a_runs_merge_is_one_revision_until_something_else_happens(
    workspace: Workspace, case_id: str
) -> None:
    prediction_id = predict(workspace, case_id, 2)
    with OpenCase(workspace, case_id) as opened:
        for z in (3, 4):
            opened.merge_slices(prediction_id, [z])
            opened.flush()
        assert [one.slices for one in opened.history()] == [(3, 4)]
        paint(opened, "lungs", ((1, 1), (2, 3), (3, 4)), 1)
        for z in (0, 5):
            opened.merge_slices(prediction_id, [z])
        assert [(one.tool, one.slices) for one in opened.history()] == [
            ("merge", (3, 4)),
            ("brush", (1,)),
            ("merge", (0, 5)),
        ]
        Path(opened.case.path, "predictions", prediction_id, "lungs/c.3.0.0").unlink()
        assert opened.state_at(1).labels["lungs"][3].any()
    assert [one.prediction_id for one in opened.history()] == [prediction_id, "", prediction_id]


@pytest.mark.parametrize("damage", ["cut", "missing"])
@pytest.mark.parametrize("name", ["", "revisions/", "sessions/"])
def test_metadata_that_are_damaged_are_made_anew(
    strokes: tuple[Workspace, str], name: str, damage: str
) -> None:
    workspace, case_id = strokes
    path = Path(workspace.case(case_id).path, f"history/{name}zarr.json")
    cut = path.read_bytes()[:30]
    path.unlink()
    if damage == "cut":
        path.write_bytes(cut)
    with OpenCase(workspace, case_id, read_only=True) as seen:
        assert seen.live["lesions"][:5].any((1, 2)).all()
    with OpenCase(workspace, case_id) as opened:
        assert opened.revision == 5
        assert paint(opened, "lungs", ((0, 1), (0, 1), (0, 1)), 1) == 6
    with OpenCase(workspace, case_id) as opened:
        assert [one.number for one in opened.history()] == [1, 2, 3, 4, 5, 6]
        assert not opened.state_at(0).labels["lesions"].any()
    if damage == "cut":
        assert path.with_name("zarr.json.damaged").read_bytes() == cut


def test_metadata_damaged_while_a_case_is_open_cost_no_stroke(strokes: tuple[Workspace, str]) -> None:
    workspace, case_id = strokes
    path = Path(workspace.case(case_id).path, "history/revisions/zarr.json")
    with OpenCase(workspace, case_id) as opened:
        assert paint(opened, "lungs", ((0, 1), (0, 1), (0, 1)), 1) == 6
        opened.flush()
        path.write_bytes(path.read_bytes()[:30])
        assert paint(opened, "lungs", ((1, 2), (0, 1), (0, 1)), 2) == 7
        opened.flush()
    with OpenCase(workspace, case_id) as again:
        assert again.revision == 7
        assert again.live["lungs"][1, 0, 0] == 2
        assert not again.state_at(6).labels["lungs"][1].any()


def test_a_newer_history_is_refused(strokes: tuple[Workspace, str]) -> None:
    workspace, case_id = strokes
    path = Path(workspace.case(case_id).path, "history/zarr.json")
    path.write_text(path.read_text().replace(f'"format": {FORMAT}', f'"format": {FORMAT + 1}'))
    for read_only in (False, True):
        with pytest.raises(CaseError, match=r"newer napari-covseg \(format \d, .* update"):
            OpenCase(workspace, case_id, read_only=read_only)
