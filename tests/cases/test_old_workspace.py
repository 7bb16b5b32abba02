"""A workspace that version 0.1 has written opens with everything that was in it.

``workspace_of_0_1.tar.xz`` holds a case of 4 x 24 x 24 voxels that was made as `STORY` says: two
sessions that were closed; a third that was killed when its last two revisions were on disk, but not
the labels of slice 0; and the file with the stroke that a full disk did not take.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.cases.case import Review, Touch
from napari_covseg.cases.check import check_workspace
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import bring_back
from napari_covseg.cases.store import FORMAT, check_format
from napari_covseg.cases.workspace import Workspace
from napari_covseg.cases.workspace_models import LearnedFrom, ModelState, WorkspaceModels

SHAPE = (4, 24, 24)
BOX = np.s_[1, 4:10, 5:12]
# number, who, tool, groups, slices, voxels, note
STORY: list[tuple[Any, ...]] = [
    (1, "Ada", "brush", ("lesions",), (1,), 42, ""),  # BOX = 2
    (2, "Ada", "fill", ("lungs",), (0,), 306, ""),  # [0, 2:20, 3:20] = 1
    (3, "Ada", "undo", ("lesions",), (1,), 42, ""),
    (4, "Ada", "redo", ("lesions",), (1,), 42, ""),
    (5, "Ada", "review", (), (3,), 0, ""),  # accepted
    (6, "unet", "merge", ("lungs", "lesions"), (0, 1, 2), 947, ""),
    (7, "user", "eraser", ("lesions",), (2,), 81, ""),  # [2, :9, :9]
    (8, "Bob", "restore", ("lungs", "lesions"), (0, 1, 2, 3), 1019, "revision 4"),
    (9, "Bob", "restore", ("lungs", "lesions"), (0, 1, 2, 3), 1019, "revision 7"),
    (10, "Ada", "brush", ("lesions",), (0,), 25, ""),  # [0, 3:8, 3:8] = 3
    (11, "Ada", "review", (), (1,), 0, ""),  # accepted
]
UNSAVED = (12, "Ada", "brush", ("lesions",), (3,), 16, "")  # [3, 10:14, 10:14] = 4


def predicted(z: int) -> tuple[Any, Any]:
    lungs, lesions = np.zeros(SHAPE[1:], np.uint8), np.zeros(SHAPE[1:], np.uint8)
    lungs[4:22, z:20], lesions[6:12, 6:18] = 2, 1 + z
    if z == 2:
        lungs[0, 0] = 1
    return lungs, lesions


def after(number: int) -> list[Any]:
    """Lungs, lesions, where a person touched them, and review states, after a revision."""
    number = {8: 4, 9: 7}.get(number, number)
    lungs, lesions = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    touched, review = [np.zeros(SHAPE, np.bool_) for _ in range(2)], [0, 0, 0, 0]
    if number >= 1:
        lesions[BOX] = 0 if number == 3 else 2
        touched[1][BOX] = True
        review[1] = Review.CORRECTED
    if number >= 2:
        lungs[0, 2:20, 3:20] = 1
        touched[0][0, 2:20, 3:20] = True
        review[0] = Review.CORRECTED
    if number >= 5:
        review[3] = Review.ACCEPTED
    if number >= 6:
        for z in range(3):
            for live, mine, new in zip((lungs, lesions), touched, predicted(z), strict=True):
                live[z] = np.where(mine[z], live[z], new)
        review[2] = Review.PREDICTED
    if number >= 7:
        lesions[2, :9, :9] = 0
        touched[1][2, :9, :9] = True
        review[2] = Review.CORRECTED
    if number >= 10:
        lesions[0, 3:8, 3:8] = 3
        touched[1][0, 3:8, 3:8] = True
    if number >= 11:
        review[1] = Review.ACCEPTED
    if number >= 12:
        lesions[3, 10:14, 10:14] = 4
        touched[1][3, 10:14, 10:14] = True
        review[3] = Review.CORRECTED
    return [lungs, lesions, *touched, np.array(review, np.uint8)]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def arrays(labels: Any, rest: Any) -> list[Any]:
    return [*labels.values(), *rest.touched.values(), rest.review]


def known(opened: OpenCase) -> list[tuple[Any, ...]]:
    return [
        (one.number, one.who, one.tool, one.groups, one.slices, one.voxels, one.note)
        for one in opened.history()
    ]


@pytest.fixture
def old(tmp_path: Path) -> tuple[Workspace, str]:
    with tarfile.open(Path(__file__).with_name("workspace_of_0_1.tar.xz")) as packed:
        packed.extractall(tmp_path, filter="data")
    workspace = Workspace.open(tmp_path / "workspace.zarr", create=False)
    (info,) = workspace.cases()
    assert (info.name, info.shape, info.patient_id) == ("Old chest", SHAPE, "P007")
    return workspace, info.id


@pytest.mark.parametrize("read_only", [True, False])
def test_labels_states_and_history_are_there(old: tuple[Workspace, str], read_only: bool) -> None:
    workspace, case_id = old
    with OpenCase(workspace, case_id, read_only=read_only) as opened:
        assert not opened.damaged and opened.revision == 11
        voxels = np.arange(np.prod(SHAPE)).reshape(SHAPE) % 1500 - 1000
        assert np.array_equal(opened.voxels, voxels)
        assert opened.case.scan().notes == ("gantry tilt of 3 degrees",)
        assert same(arrays(opened.live, opened), after(11))
        assert known(opened) == STORY
        assert opened.history()[0].when.year == 2026
        assert opened.history()[5].prediction_id == opened.case.predictions()[0].id
        for number in range(12):
            state = opened.state_at(number)
            assert state.missing == ()
            assert same(arrays(state.labels, state), after(number)), number


def test_one_goes_on_in_it(old: tuple[Workspace, str]) -> None:
    workspace, case_id = old
    assert check_workspace(workspace.path) == []
    with OpenCase(workspace, case_id, who="Eve") as opened:
        opened.restore(3)
        assert same(arrays(opened.live, opened), after(3))
    with OpenCase(workspace, case_id) as opened:
        assert same(arrays(opened.live, opened), after(3))
        assert known(opened)[:11] == STORY and known(opened)[11][1:3] == ("Eve", "restore")
        opened.restore(11)
        assert same(arrays(opened.live, opened), after(11))
    assert check_workspace(workspace.path) == []


@pytest.mark.parametrize("cut_short", [False, True])
def test_it_takes_what_a_tool_spreads(old: tuple[Workspace, str], cut_short: bool) -> None:
    workspace, case_id = old
    if cut_short:  # when its number was written, but not yet its arrays
        attributes = Path(workspace.path, "cases", case_id, "zarr.json")
        attributes.write_text(attributes.read_text().replace('"format": 1', '"format": 2'))
    with OpenCase(workspace, case_id) as opened:
        opened.live["lesions"][2, 20, 3:6] = 2
        index = (np.full(3, 2), np.full(3, 20), np.arange(3, 6))
        opened.record("lesions", index, 0, "smooth", spread=[2])
    for read_only in (True, False):
        with OpenCase(workspace, case_id, read_only=read_only) as opened:
            assert (opened.touched["lesions"][2, 20, 3:6] == Touch.SPREAD).all()
            assert opened.touched["lesions"][1].any() and opened.review[2] == Review.CORRECTED
            assert check_format(opened.case.group, "case")["format"] == FORMAT
    assert check_workspace(workspace.path) == []


def test_the_stroke_that_a_full_disk_did_not_take_comes_back(old: tuple[Workspace, str]) -> None:
    workspace, case_id = old
    (path,) = Path(workspace.path).parent.glob(f"{case_id}-*.covseg-strokes")
    with OpenCase(workspace, case_id) as opened:
        (change,) = bring_back(opened, path)
        assert (change.group, change.z, len(change.after)) == ("lesions", 3, 16)
        assert same(arrays(opened.live, opened), after(12))
        assert bring_back(opened, path) == []
    with OpenCase(workspace, case_id) as opened:
        assert same(arrays(opened.live, opened), after(12))
        assert known(opened) == [*STORY, UNSAVED]


def test_what_the_model_predicted_is_there(old: tuple[Workspace, str]) -> None:
    workspace, case_id = old
    case = workspace.case(case_id)
    (info,) = case.predictions()
    assert (info.model_id, info.settings, info.class_names) == ("unet", {"batch": 4}, ("lungs", "lesion"))
    assert (info.revision, info.probabilities, info.finished) == (5, True, True)
    run = case.prediction(info.id)
    assert run.done.tolist() == [True] * 4
    for z in range(4):
        lungs, lesions = predicted(z)
        assert np.array_equal(run.read_slice(z), (lungs, lesions))
        lungs[0, 0] = 0  # came with the last pass, after the probabilities
        assert np.array_equal(run.read_probabilities(z), (lungs * 60, lesions * 70))
        assert np.array_equal(run.read_uncertainty(z), lesions * 10)
        assert run.read_entropy(z) == 1.5 + z


def test_what_learned_in_it_is_there(old: tuple[Workspace, str]) -> None:
    workspace, case_id = old
    versions = WorkspaceModels(workspace)
    (made,) = versions.list()
    assert (made.id, made.base, made.parent, made.state) == ("unet-1", "unet", "unet", ModelState.KEPT)
    assert made.learned_from == {case_id: LearnedFrom(7, (0, 1), (2,))}
    assert made.scores == {"held-out": {"before": 0.5, "after": 0.75}}
    assert json.loads(made.card) == {"id": "unet-1"}
    assert versions.current("unet") == "unet-1" and versions.weights("unet-1") == bytes(range(256))
    assert versions.curves("unet-1").losses.tolist() == [0, 1, 2, 3, 4]


def test_it_is_the_old_workspace_that_wrote_it(old: tuple[Workspace, str]) -> None:
    """The killed session has left its revisions alone, and labels that do not show them."""
    workspace, case_id = old
    folder = Path(workspace.path, "cases", case_id)
    assert sorted(path.name for path in (folder / "history/revisions").glob("c.*")) == ["c.10.0", "c.11.0"]
    assert sorted(path.name for path in (folder / "history/sessions").glob("c.*")) == ["c.7.0", "c.9.0"]
    assert not np.array_equal(workspace.case(case_id).labels("lesions")[0], after(11)[1][0])
    shutil.rmtree(folder / "history/revisions")
    with OpenCase(workspace, case_id, read_only=True) as opened:
        assert np.array_equal(opened.live["lesions"][0], after(9)[1][0])
