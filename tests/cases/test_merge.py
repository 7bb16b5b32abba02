"""The merge never changes what a person did, and doing it twice changes nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from painting import paint

from napari_covseg.cases.case import Review
from napari_covseg.cases.merge import merge_prediction, review_after_merge, writable
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError
from napari_covseg.labels import GROUPS

SHAPE = (7, 5)
labels = hnp.arrays(np.uint8, SHAPE, elements=st.integers(0, 4))
masks = hnp.arrays(np.bool_, SHAPE)
reviews = st.sampled_from(list(Review))


def merged(predicted: Any, live: Any, touched: Any, review: int) -> Any:
    return np.where(writable(predicted, live, touched, review), predicted, live)


@given(labels, labels, masks, reviews)
def test_twice_is_once(predicted: Any, live: Any, touched: Any, review: Review) -> None:
    once = merged(predicted, live, touched, review)
    after = review_after_merge(review)
    assert not writable(predicted, once, touched, after).any()
    assert review_after_merge(after) == after


@given(labels, labels, masks, reviews)
def test_touched_voxels_stay_and_all_others_follow(
    predicted: Any, live: Any, touched: Any, review: Review
) -> None:
    result = merged(predicted, live, touched, review)
    assert np.array_equal(result[touched], live[touched])
    if review != Review.ACCEPTED:
        assert np.array_equal(result[~touched], predicted[~touched])


@given(labels, labels, masks)
def test_an_accepted_slice_stays(predicted: Any, live: Any, touched: Any) -> None:
    assert np.array_equal(merged(predicted, live, touched, Review.ACCEPTED), live)
    assert review_after_merge(Review.ACCEPTED) == Review.ACCEPTED


@given(labels, labels, labels, masks)
def test_the_order_of_runs_decides_only_outside_a_persons_voxels(
    first: Any, second: Any, live: Any, touched: Any
) -> None:
    result = merged(second, merged(first, live, touched, 0), touched, 1)
    assert np.array_equal(result, merged(second, live, touched, 0))


def test_states_after_a_merge() -> None:
    after = [review_after_merge(state) for state in Review]
    assert after == [Review.PREDICTED, *list(Review)[1:]]


def predicted_run(workspace: Workspace, case_id: str, value: int, slices: range) -> str:
    case = workspace.case(case_id)
    run = case.begin_prediction("m", {}, ["lungs"], 0, probabilities=False)
    for z in slices:
        full = np.full(case.shape[1:], value, np.uint8)
        run.write_slice(z, full, full)
    return run.id


def test_merging_on_disk_and_in_memory_agree(workspace: Workspace, scan_maker: Any) -> None:
    ids = [workspace.add_case(scan_maker()) for _ in range(2)]
    for case_id in ids:
        with OpenCase(workspace, case_id) as opened:
            paint(opened, "lungs", np.s_[1, 2:5, 3], 3)
            opened.set_review(2, Review.ACCEPTED)
    case = workspace.case(ids[0])
    prediction_id = predicted_run(workspace, ids[0], 2, range(5))
    assert merge_prediction(case, case.prediction(prediction_id)) == [0, 1, 3, 4]
    assert merge_prediction(case, case.prediction(prediction_id)) == []
    prediction_id = predicted_run(workspace, ids[1], 2, range(5))
    with OpenCase(workspace, ids[1]) as opened:
        assert opened.merge_slices(prediction_id, range(6)) == [0, 1, 3, 4]
        assert opened.merge_slices(prediction_id, range(6)) == []
    one, two = (OpenCase(workspace, case_id, read_only=True) for case_id in ids)
    assert np.array_equal(one.live["lungs"], two.live["lungs"])
    assert np.array_equal(one.live["lesions"], two.live["lesions"])
    assert one.review.tolist() == two.review.tolist() == [1, 2, 3, 1, 1, 0]
    assert one.live["lungs"][1, 2:5, 3].tolist() == [3, 3, 3]
    assert not one.live["lungs"][2].any()


def test_only_the_named_slices_are_merged(workspace: Workspace, case_id: str) -> None:
    case = workspace.case(case_id)
    run = case.prediction(predicted_run(workspace, case_id, 1, range(6)))
    assert merge_prediction(case, run, [4, 2]) == [2, 4]
    assert case.review.tolist() == [0, 0, 1, 0, 1, 0]


def test_what_a_person_erased_stays_erased(workspace: Workspace, case_id: str) -> None:
    prediction_id = predicted_run(workspace, case_id, 2, range(6))
    with OpenCase(workspace, case_id) as opened:
        opened.merge_slices(prediction_id, [3])
        paint(opened, "lesions", np.s_[3, 4:9, 4:9], 0)
        again = predicted_run(workspace, case_id, 4, range(6))
        opened.merge_slices(again, [3])
    case = workspace.case(case_id)
    merge_prediction(case, case.prediction(again))
    stored = case.labels("lesions")[3]
    assert not stored[4:9, 4:9].any()
    assert stored.sum() == 4 * (stored.size - 25)
    assert case.review[3] == Review.CORRECTED


boxes = st.tuples(*(st.tuples(st.integers(0, size - 1), st.integers(1, size)) for size in (3, 8, 6)))
strokes = st.tuples(st.just("paint"), st.sampled_from(list(GROUPS)), boxes, st.integers(0, 3))
others = st.one_of(
    st.tuples(st.just("predict"), st.integers(0, 3)),
    st.tuples(st.just("accept"), st.integers(0, 2)),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("merge on disk"), st.integers(0, 3)),
)


@pytest.mark.slow
@settings(max_examples=15)
@given(st.lists(st.one_of(strokes, others), max_size=12))
def test_whatever_happens_a_persons_voxels_stay(made: tuple[Workspace, str], story: list[Any]) -> None:
    workspace, template = made
    case_id = f"{template}-{uuid4().hex}"
    cases = Path(workspace.path, "cases")
    shutil.copytree(cases / template, cases / case_id)
    opened = OpenCase(workspace, case_id)
    persons = {group: np.full(opened.case.shape, -1) for group in GROUPS}
    accepted: dict[int, Any] = {}
    for what, *details in story:
        if what == "paint":
            group, box, value = details
            index = tuple(slice(start, start + size) for start, size in box)
            persons[group][index] = value
            paint(opened, group, index, value)
            for z in range(3)[index[0]]:
                accepted.pop(z, None)
        elif what == "predict":
            opened.merge_slices(predicted_run(workspace, case_id, details[0], range(3)), range(3))
        elif what == "accept":
            opened.set_review(details[0], Review.ACCEPTED)
            accepted[details[0]] = {group: opened.live[group][details[0]].copy() for group in GROUPS}
        else:
            opened.close()
            if what == "merge on disk":
                case = workspace.case(case_id)
                merge_prediction(
                    case, case.prediction(predicted_run(workspace, case_id, details[0], range(3)))
                )
            opened = OpenCase(workspace, case_id)
        for group in GROUPS:
            mine = persons[group] >= 0
            assert np.array_equal(opened.touched[group], mine)
            assert np.array_equal(opened.live[group][mine], persons[group][mine])
            for z, labels_then in accepted.items():
                assert np.array_equal(opened.live[group][z], labels_then[group])
    opened.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, scan_maker: Any) -> tuple[Workspace, str]:
    workspace = Workspace.open(tmp_path_factory.mktemp("story") / "w")
    return workspace, workspace.add_case(scan_maker((3, 8, 6)))


def test_merging_on_disk_needs_the_lock(workspace: Workspace, case_id: str) -> None:
    case = workspace.case(case_id)
    run = case.prediction(predicted_run(workspace, case_id, 2, range(6)))
    with OpenCase(workspace, case_id), pytest.raises(CaseError, match="already open"):
        merge_prediction(case, run)
    assert len(merge_prediction(case, run)) == 6


def test_a_writer_of_its_own_gets_the_changes(workspace: Workspace, case_id: str) -> None:
    prediction_id = predicted_run(workspace, case_id, 2, range(2))
    got = []
    with OpenCase(workspace, case_id) as opened:
        opened.live["lungs"][0, :, 5:] = 2

        def write(group: Any, indices: Any, values: Any) -> None:
            got.append((group, len(values)))
            opened.live[group][indices] = values

        assert opened.merge_slices(prediction_id, [0], write) == [0]
        assert (opened.live["lungs"][0] == 2).all()
    rows, columns = opened.case.shape[1:]
    assert got == [("lungs", rows * 5), ("lesions", rows * columns)]
