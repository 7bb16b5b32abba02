"""Whatever happens to a case, every state that it was in can be seen again, whatever crashes."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_covseg.cases import OpenCase, Review, Workspace, merge_run
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
    index = tuple((axis + start) % size for axis, (start, _), size in zip(index, box, SHAPE, strict=True))
    before = opened.live[group][index]
    opened.live[group][index] = value
    return opened.record(group, index, before, **how)


def predict(workspace: Workspace, case_id: str, value: int) -> str:
    case = workspace.case(case_id)
    run = case.begin_run("m", {}, ["lungs"], 0, probabilities=False)
    for z in range(case.shape[0]):
        full = np.full(case.shape[1:], value, np.uint8)
        full[: z + 1] = 0
        run.write_slice(z, full, full.T.reshape(full.shape))
    return run.id


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scan_maker: Any) -> tuple[Workspace, str]:
    workspace = Workspace.open(tmp_path_factory.mktemp("history") / "w")
    return workspace, workspace.add_case(scan_maker(SHAPE))


def copied(made: tuple[Workspace, str]) -> str:
    workspace, template = made
    case_id = f"{template}-{uuid4().hex}"
    cases = Path(workspace.path, "cases")
    shutil.copytree(cases / template, cases / case_id)
    return case_id


boxes = st.tuples(*(st.tuples(st.integers(0, size - 1), st.integers(1, size)) for size in SHAPE))
groups = st.sampled_from(list(GROUPS))
doings = st.one_of(
    st.tuples(st.just("brush"), groups, boxes, st.integers(0, 3)),
    st.tuples(st.just("undo"), groups, boxes, st.integers(0, 3)),
    st.tuples(st.just("mark"), groups, boxes, st.integers(0, 3)),
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
    elif what == "mark":
        group, box, value = details
        index = tuple(slice(start, start + size) for start, size in box)
        opened.live[group][index] = value
        opened.mark_painted(group, index)
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


@settings(max_examples=40, deadline=None)
@given(st.lists(doings, max_size=14))
def test_each_state_can_be_seen_again(made: tuple[Workspace, str], story: list[Any]) -> None:
    workspace, case_id = made[0], copied(made)
    opened = OpenCase(workspace, case_id)
    known = {0: Copy.of(opened)}
    for what, *details in story:
        if what in ("reopen", "merge on disk"):
            opened.close()
            if what == "merge on disk":
                case = workspace.case(case_id)
                merge_run(case, case.run(predict(workspace, case_id, details[0])))
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
