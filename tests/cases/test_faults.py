"""Full disks, folders that are read-only or gone, damaged files: one sentence, nothing lost."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painting import paint
from zarr.storage import LocalStore

from napari_covseg.cases import chunks, lock
from napari_covseg.cases.case import Review
from napari_covseg.cases.merge import merge_prediction
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError


def failing(code: int, after: int = 0) -> Callable[..., Any]:
    """Return a function that works `after` times as `chunks._write_file` and then fails."""
    real, left = chunks._write_file, [after]

    def write(path: str, data: bytes) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(code, os.strerror(code), path)
        real(path, data)

    return write


def one_sentence(error: CaseError) -> str:
    text = str(error)
    assert "\n" not in text and text.endswith(".") and ": " in text
    return text


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
        (errno.EIO, "check the drive"),
    ],
)
def test_strokes_outlive_a_disk_that_cannot_be_written(
    workspace: Workspace, case_id: str, monkeypatch: pytest.MonkeyPatch, code: int, words: str
) -> None:
    told: list[CaseError] = []
    opened = OpenCase(workspace, case_id, on_error=told.append)
    opened.flush()
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", failing(code))
        paint(opened, "lungs", 2, 1)
        with pytest.raises(CaseError) as raised:
            opened.flush()
        with pytest.raises(CaseError, match=words):
            opened.close()
        assert opened.pending
        paint(opened, "lungs", 3)
    assert words in one_sentence(raised.value)
    assert workspace.path in str(raised.value)
    opened.close()
    assert told and all(words in str(error) for error in told)
    with OpenCase(workspace, case_id) as again:
        assert again.live["lungs"][2].all()
        assert again.touched["lungs"][2:4].all()


def test_a_case_can_be_closed_without_saving(
    workspace: Workspace, case_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = OpenCase(workspace, case_id)
    opened.flush()
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", failing(errno.ENOSPC))
        paint(opened, "lungs", 2)
        opened.close(discard=True)
    with OpenCase(workspace, case_id) as again:
        assert not again.touched["lungs"].any()


@pytest.mark.parametrize("after", [0, 4])
def test_a_disk_that_fills_up_during_an_import(
    workspace: Workspace, scan: Any, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_write_file", failing(errno.ENOSPC, after))
        with pytest.raises(CaseError, match="disk is full") as raised:
            workspace.add_case(scan)
    one_sentence(raised.value)
    assert workspace.cases() == []
    assert not Path(workspace.path, "incoming").exists()
    workspace.add_case(scan)


def test_a_disk_that_is_full_for_metadata(
    workspace: Workspace, case_id: str, scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(LocalStore, "set", full)
    for write in (
        lambda: workspace.add_case(scan),
        lambda: workspace.case(case_id).begin_prediction("m", {}, [], 0, probabilities=False),
        lambda: Workspace.open(Path(workspace.path).parent / "other"),
    ):
        with pytest.raises(CaseError, match="disk is full") as raised:
            write()
        one_sentence(raised.value)


def test_a_read_only_folder_can_be_read(
    workspace: Workspace, case_id: str, scan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *args: Any, **kwargs: Any) -> int:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(lock.os, "open", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    for write in (lambda: OpenCase(workspace, case_id), lambda: workspace.add_case(scan)):
        with pytest.raises(CaseError, match="read-only") as raised:
            write()
        one_sentence(raised.value)
    seen = OpenCase(workspace, case_id, read_only=True)
    assert np.array_equal(seen.voxels, scan.voxels)


def damage_chunk(chunk: Path, how: str) -> bytes:
    """Damage a chunk; returns what it was."""
    whole = chunk.read_bytes()
    if how == "missing":
        chunk.unlink()
    elif how == "empty":
        chunk.write_bytes(b"")
    else:
        chunk.write_bytes(whole[:-6] + bytes([whole[-6] ^ 1]) + whole[-5:])
    return whole


@pytest.mark.parametrize("name", ["0", "labels/lungs/0", "labels/lesions/touched", "review", "activity"])
@pytest.mark.parametrize("damage", ["flipped", "empty"])
def test_what_is_damaged_is_named_and_the_rest_is_there(
    workspace: Workspace, case_id: str, scan: Any, name: str, damage: str
) -> None:
    with OpenCase(workspace, case_id) as opened:
        for group in ("lungs", "lesions"):
            paint(opened, group, np.s_[:2], 1)
        opened.set_review(3, Review.ACCEPTED)
    case = workspace.case(case_id)
    chunk = next(Path(case.path, name).glob("c.0*"))
    damage_chunk(chunk, damage)
    (info,) = workspace.cases()
    assert info.id == case_id
    with OpenCase(workspace, case_id) as opened:
        (found,) = opened.damaged
        assert case.path in one_sentence(CaseError(found.message))
        assert "damaged" in found.message
        assert opened.voxels[0].max() > -1024 or name == "0"
        for group in ("lungs", "lesions"):  # made anew from the history
            assert opened.live[group][:2].all() and opened.touched[group][:2].all()
        assert found.rebuilt == ("labels" in name)
        assert np.array_equal(opened.voxels[1:], scan.voxels[1:])
        assert (opened.review[3] == Review.ACCEPTED) == (name != "review")
        assert opened.revision == 3
        assert len(opened.history()) == 3


@pytest.mark.parametrize("kind", ["0", "touched"])
def test_a_slice_without_history_is_empty_and_no_model_writes_there(
    workspace: Workspace, case_id: str, kind: str
) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lungs", np.s_[:2], 1)
    case = workspace.case(case_id)
    shutil.rmtree(Path(case.path, "history"))
    damage_chunk(Path(case.path, "labels/lungs", kind, "c.0.0.0"), "flipped")
    run = case.begin_prediction("m", {}, [], 0, probabilities=False)
    for z in range(3):
        run.write_slice(z, *(np.full(case.shape[1:], 2, np.uint8) for _ in range(2)))
    assert merge_prediction(case, case.prediction(run.id)) == [1, 2]
    with OpenCase(workspace, case_id) as opened:
        (found,) = opened.damaged
        assert not found.rebuilt
        assert opened.live["lungs"][0].any() == (kind == "touched")
        assert opened.merge_slices(run.id, range(3)) == []
        assert (opened.live["lungs"][1] == 1).all() and (opened.live["lungs"][2] == 2).all()


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE])
def test_a_drive_that_cannot_be_read_while_one_paints(
    workspace: Workspace, case_id: str, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lungs", np.s_[:2], 1)
    real = chunks._read_file

    def read(path: str) -> bytes:
        if "labels/lungs" in path and "c.0." in path:
            raise OSError(code, os.strerror(code), path)
        return real(path)

    opened = OpenCase(workspace, case_id)
    opened.flush()
    with monkeypatch.context() as patch:
        patch.setattr(chunks, "_read_file", read)
        opened.live["lungs"][0, 3] = 2
        opened.record("lungs", voxels(0, 3, range(24)), 1)
        if code == errno.ESTALE:  # the drive may come back
            with pytest.raises(CaseError, match="check the drive"):
                opened.flush()
            with pytest.raises(CaseError, match="check the drive") as raised:
                OpenCase(workspace, case_id, read_only=True)
            one_sentence(raised.value)
        else:  # this slice will not
            opened.flush()
            assert OpenCase(workspace, case_id, read_only=True).damaged
    known = opened.live["lungs"].copy()
    opened.close()
    with OpenCase(workspace, case_id) as again:
        assert np.array_equal(again.live["lungs"], known)
        assert not again.damaged


@pytest.mark.parametrize("kind", ["0", "touched"])
def test_what_is_damaged_is_kept_beside_before_it_is_written_again(
    workspace: Workspace, case_id: str, kind: str
) -> None:
    with OpenCase(workspace, case_id) as opened:
        paint(opened, "lungs", np.s_[:2], 1)
    chunk = Path(workspace.case(case_id).path, "labels/lungs", kind, "c.0.0.0")
    damage_chunk(chunk, "flipped")
    damaged = chunk.read_bytes()
    with OpenCase(workspace, case_id) as opened:
        opened.live["lungs"][1, 3] = 2
        opened.record("lungs", voxels(1, 3, range(24)), 1)
    assert chunk.read_bytes() == damaged  # nobody had a reason to write it
    for count in range(2):
        with OpenCase(workspace, case_id) as opened:
            opened.live["lungs"][0, 3] = 2
            opened.record("lungs", voxels(0, 3, range(24)), 0)
        kept = sorted(path.name for path in chunk.parent.glob("*.damaged"))
        assert kept == ["c.0.0.0.1.damaged", "c.0.0.0.damaged"][1 - count :]
        assert chunk.with_name(kept[0]).read_bytes() == damaged
        with OpenCase(workspace, case_id) as opened:
            assert not opened.damaged
            assert (opened.live["lungs"][0, 3] == 2).all()
        damage_chunk(chunk, "empty")
        damaged = b""


def voxels(z: int, y: int, x: range) -> tuple[Any, Any, Any]:
    return np.full(len(x), z), np.full(len(x), y), np.array(x)


def test_a_slice_of_the_scan_that_is_missing_is_not_taken_for_zeros(
    workspace: Workspace, case_id: str, scan: Any
) -> None:
    case = workspace.case(case_id)
    Path(case.path, "0/c.3.0.0").unlink()
    for read in (lambda: case.read_slice(3), case.scan):
        with pytest.raises(CaseError, match=r"Slice 4 of .* is missing") as raised:
            read()
        one_sentence(raised.value)
    assert np.array_equal(case.read_slice(2), scan.voxels[2])
    with OpenCase(workspace, case_id) as opened:
        assert [(one.what, one.z) for one in opened.damaged] == [("scan", 3)]
        assert (opened.voxels[3] == -1024).all()


def test_a_scan_of_which_nothing_is_left_does_not_open(workspace: Workspace, case_id: str) -> None:
    for chunk in Path(workspace.case(case_id).path, "0").glob("c.*"):
        chunk.unlink()
    with pytest.raises(CaseError, match="No slice of") as raised:
        OpenCase(workspace, case_id)
    one_sentence(raised.value)
    with pytest.raises(CaseError, match="No slice of"):  # and not that it is open already
        OpenCase(workspace, case_id)


@pytest.mark.parametrize("name", ["review", "activity"])
def test_a_record_that_is_missing_is_not_taken_for_zeros(
    workspace: Workspace, case_id: str, name: str
) -> None:
    Path(workspace.case(case_id).path, name, "c.0").unlink()
    with OpenCase(workspace, case_id) as opened:
        assert [one.what for one in opened.damaged] == [name]
        assert "damaged" in opened.damaged[0].message


def test_a_drive_that_is_gone(workspace: Workspace, case_id: str) -> None:
    opened = OpenCase(workspace, case_id)
    case = workspace.case(case_id)
    opened.flush()
    away = Path(workspace.path).rename(Path(workspace.path).with_name("unplugged"))
    paint(opened, "lungs", 2, 1)
    for action in (
        opened.flush,
        lambda: case.review,
        lambda: case.read_slice(0),
        case.predictions,
        workspace.cases,
        lambda: workspace.case(case_id),
        lambda: Workspace.open(workspace.path, create=False),
    ):
        with pytest.raises(CaseError) as raised:
            action()
        one_sentence(raised.value)
    assert not Path(workspace.path).exists()
    away.rename(workspace.path)
    opened.set_review(3, Review.ACCEPTED)
    opened.close()
    with OpenCase(workspace, case_id) as again:
        assert again.live["lungs"][2].all()
        assert again.review[3] == Review.ACCEPTED
