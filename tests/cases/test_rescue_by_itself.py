"""Strokes that a workspace does not take are saved by themselves, and come back by themselves."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_covseg.cases import chunks, rescue
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import BROUGHT_BACK, bring_back_waiting, close_or_save, waiting
from napari_covseg.cases.revision import Record
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Folders of this test alone."""
    places = [tmp_path / name for name in ("data", "home", "temp")]
    monkeypatch.setattr(rescue, "folders", lambda: places)
    return places


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.ESTALE])
def fault(request: Any) -> Callable[..., None]:
    def refuse(path: str, *args: Any, **kwargs: Any) -> None:
        raise OSError(request.param, os.strerror(request.param), path)

    return refuse


def stroke(opened: OpenCase, z: int, value: int, at: int = 2) -> None:
    y, x = (axis.ravel() + at for axis in np.indices((5, 7)))
    index = np.full(y.shape, z), y, x
    before = opened.live["lesions"][index]
    opened.live["lesions"][index] = value
    opened.record("lesions", index, before)


def everything(case: Any) -> list[Any]:
    return [array.copy() for array in (*case.live.values(), *case.touched.values(), case.review)]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def block(folder: Path) -> None:
    """Make a folder impossible, for root too."""
    folder.write_text("a file lies where the folder should be")


def begun(workspace: Workspace, case_id: str) -> OpenCase:
    opened = OpenCase(workspace, case_id, who="Ada")
    stroke(opened, 0, 1)
    opened.flush()
    return opened


def test_what_cannot_be_saved_is_kept_and_comes_back(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        stroke(opened, 1, 2)
        stroke(opened, 1, 3, at=9)
        kept = close_or_save(opened)
        history = opened.history()
    assert kept is not None and kept.path.parent == folders[0] and workspace.path in kept.reason
    assert waiting(case_id) == [kept.path]
    known = everything(opened)

    with OpenCase(workspace, case_id) as again:  # the lock was given back
        came = bring_back_waiting(again)
        assert (came.changes, came.problems) == (2, ())
        assert came.files == (kept.path.with_name(kept.path.name + BROUGHT_BACK),)
        assert came.files[0].exists() and not kept.path.exists()
        assert not again.pending
        assert same(everything(again), known) and again.history() == history
        assert bring_back_waiting(again) == rescue.BroughtBack(0, (), ())
    with OpenCase(workspace, case_id) as again:
        assert same(everything(again), known) and again.history() == history


def test_a_case_that_can_be_saved_needs_no_file(
    workspace: Workspace, case_id: str, folders: list[Path]
) -> None:
    assert close_or_save(begun(workspace, case_id)) is None
    assert not any(folder.exists() for folder in folders)


@pytest.mark.parametrize("impossible", [1, 2])
def test_the_next_folder_is_taken(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    impossible: int,
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for folder in folders[:impossible]:
        block(folder)
    opened = begun(workspace, case_id)
    monkeypatch.setattr(chunks, "_write_file", fault)
    stroke(opened, 1, 2)
    kept = close_or_save(opened)
    assert kept is not None and kept.path.parent == folders[impossible]
    assert waiting(case_id) == [kept.path]


def test_nowhere_to_save_leaves_the_case_open(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        patch.setattr(rescue.os, "fsync", fault)
        stroke(opened, 1, 2)
        with pytest.raises(CaseError) as told:
            close_or_save(opened)
        assert workspace.path in str(told.value) and str(folders[0]) in str(told.value)
        stroke(opened, 2, 2)  # one can go on
    assert not any(list(folder.iterdir()) for folder in folders)  # nothing half written either
    known = everything(opened)
    assert close_or_save(opened) is None
    with OpenCase(workspace, case_id) as again:
        assert same(everything(again), known)


def test_two_sessions_on_a_full_disk_come_back_in_order(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        stroke(opened, 1, 2)
        assert close_or_save(opened)
        second = OpenCase(workspace, case_id)
        came = bring_back_waiting(second)
        assert came.changes == 1 and not came.files
        (problem,) = came.problems
        assert "not saved in the case" in problem and str(folders[0]) in problem
        assert same(everything(second), everything(opened))
        stroke(second, 1, 3, at=4)
        assert close_or_save(second)
    assert len(waiting(case_id)) == 2
    with OpenCase(workspace, case_id) as again:
        came = bring_back_waiting(again)
        assert came.changes == 2 and came.files and not came.problems
        assert same(everything(again), everything(second))
        assert again.history() == second.history()
    assert waiting(case_id) == []


def test_two_sessions_that_knew_nothing_of_each_other(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        for z in (1, 2):
            opened = OpenCase(workspace, case_id)
            stroke(opened, z, 2)
            assert close_or_save(opened)
    with OpenCase(workspace, case_id) as again:
        assert not bring_back_waiting(again).problems
        assert (again.live["lesions"][1:3] == 2).sum() == 70


def test_a_damaged_file_is_told_and_left_and_the_next_one_comes_back(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        stroke(opened, 1, 2)
        kept = close_or_save(opened)
    assert kept is not None
    damaged = folders[0] / f"{case_id}-20200101-000000-abcd.covseg-strokes"
    damaged.write_bytes(kept.path.read_bytes()[100:])
    with OpenCase(workspace, case_id) as again:
        came = bring_back_waiting(again)
        assert came.changes == 1 and len(came.files) == 1
        (problem,) = came.problems
        assert str(damaged) in problem and "\n" not in problem
        assert len(bring_back_waiting(again).problems) == 1
    assert waiting(case_id) == [damaged]


def test_a_folder_that_cannot_be_changed_does_no_harm(
    workspace: Workspace,
    case_id: str,
    folders: list[Path],
    fault: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", fault)
        stroke(opened, 1, 2)
        kept = close_or_save(opened)
    assert kept is not None
    with monkeypatch.context() as patch, OpenCase(workspace, case_id) as again:
        patch.setattr(rescue.Path, "rename", fault)
        assert bring_back_waiting(again).files == (kept.path,)
        assert bring_back_waiting(again) == rescue.BroughtBack(0, (), ())


@pytest.fixture
def left(workspace: Workspace, case_id: str, folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a session of the case in `workspace` has left a stroke that could not be saved."""

    def full(path: str, *args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)

    opened = begun(workspace, case_id)
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", full)
        stroke(opened, 1, 2)
        kept = close_or_save(opened)
    assert kept is not None
    return kept.path


@pytest.fixture
def copy(workspace: Workspace, left: Path, tmp_path: Path) -> Workspace:
    return Workspace.open(shutil.copytree(workspace.path, tmp_path / "copy.zarr"), create=False)


def has_come_back(workspace: Workspace, case_id: str) -> rescue.BroughtBack:
    """Open a case as the viewer does; what is said to have come back is there, and nothing else."""
    with OpenCase(workspace, case_id) as again:
        came = bring_back_waiting(again)
        assert bool(again.live["lesions"][1].any()) == (came.changes == 1)
        return came


def test_a_copied_workspace_does_not_take_the_strokes_of_the_original(
    workspace: Workspace, copy: Workspace, case_id: str, left: Path
) -> None:
    came = has_come_back(copy, case_id)
    assert (came.changes, came.files) == (0, ()) and waiting(case_id) == [left]
    (problem,) = came.problems
    assert workspace.path in problem and str(left) in problem and "\n" not in problem
    came = has_come_back(workspace, case_id)
    assert (came.changes, len(came.files), came.problems) == (1, 1, ())
    assert has_come_back(copy, case_id) == rescue.BroughtBack(0, (), ())  # it waits no more


def test_a_copied_workspace_takes_them_by_hand(
    workspace: Workspace, copy: Workspace, case_id: str, left: Path
) -> None:
    with OpenCase(copy, case_id) as again:
        assert len(rescue.bring_back(again, left)) == 1
        assert again.live["lesions"][1].any()
    assert has_come_back(workspace, case_id).changes == 1


@pytest.mark.parametrize("gone", ["workspace", "case"])
def test_where_the_original_is_gone_another_workspace_takes_them(
    workspace: Workspace, copy: Workspace, case_id: str, left: Path, gone: str
) -> None:
    shutil.rmtree(Path(workspace.path) if gone == "workspace" else Path(workspace.path, "cases", case_id))
    came = has_come_back(copy, case_id)
    assert (came.changes, len(came.files), came.problems) == (1, 1, ())


@pytest.mark.skipif(os.name != "posix", reason="links need a privilege")
def test_a_workspace_behind_a_link_is_the_same(
    workspace: Workspace, case_id: str, left: Path, tmp_path: Path
) -> None:
    (tmp_path / "link.zarr").symlink_to(workspace.path)
    assert has_come_back(Workspace.open(tmp_path / "link.zarr", create=False), case_id).changes == 1


def test_a_drive_that_does_not_answer_has_not_lost_the_original(
    workspace: Workspace, copy: Workspace, case_id: str, left: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exists = Path.exists

    def asked(path: Path) -> bool:
        if path.is_relative_to(workspace.path):
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return exists(path)

    monkeypatch.setattr(Path, "exists", asked)
    assert len(has_come_back(copy, case_id).problems) == 1 and waiting(case_id) == [left]


def test_a_file_that_does_not_say_where_it_is_from_comes_back_anywhere(
    copy: Workspace, case_id: str, left: Path
) -> None:
    state, *others = Record.scan(left.read_bytes())
    extra = {name: value for name, value in (state.extra or {}).items() if name != "workspace"}
    assert extra != state.extra
    left.write_bytes(b"".join(record.encode() for record in (replace(state, extra=extra), *others)))
    assert has_come_back(copy, case_id).changes == 1


def test_only_this_cases_files_wait(case_id: str, folders: list[Path]) -> None:
    folders[1].mkdir()
    stamp = "20260102-030405-abcd"
    names = [f"{case_id}-{stamp}.covseg-strokes", f"{case_id}-b-{stamp}.covseg-strokes"]
    others = [f"{names[0]}{BROUGHT_BACK}", f"{case_id}-{stamp}.partial", f"{case_id}.covseg-strokes"]
    for name in names + others:
        (folders[1] / name).write_bytes(b"")
    assert waiting(case_id) == [folders[1] / names[0]]
    assert waiting(f"{case_id}-b") == [folders[1] / names[1]]


def test_the_folders_are_the_persons_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    first, *others = rescue.folders()
    assert first.name == "rescued" and "napari-covseg" in str(first.parent)
    assert len({first, *others}) == 3

    def none() -> str:
        raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")

    monkeypatch.setattr(rescue.tempfile, "gettempdir", none)
    assert rescue.folders() == [first, others[0]]
