"""When the workspace cannot be written, what was drawn goes elsewhere, and comes back."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painting import paint

from napari_covseg.cases import chunks
from napari_covseg.cases import rescue as rescue_module
from napari_covseg.cases.case import Review
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.rescue import bring_back, save
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError


def stroke(opened: OpenCase, z: int, value: int) -> int:
    y, x = (axis.ravel() + 2 for axis in np.indices((5, 7)))
    index = np.full(y.shape, z), y, x
    before = opened.live["lesions"][index]
    opened.live["lesions"][index] = value
    return opened.record("lesions", index, before)


@pytest.fixture(params=[errno.ENOSPC, errno.EROFS, errno.EIO, errno.ESTALE])
def broken(
    workspace: Workspace, case_id: str, request: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[OpenCase]:
    """A session with two strokes on disk and three that cannot be written."""
    opened = OpenCase(workspace, case_id, who="Ada")
    stroke(opened, 0, 1)
    opened.set_review(5, Review.ACCEPTED)
    opened.flush()

    def refuse(path: str, data: bytes) -> None:
        raise OSError(request.param, os.strerror(request.param), path)

    monkeypatch.setattr(chunks, "_write_file", refuse)
    stroke(opened, 1, 2)
    stroke(opened, 1, 3)
    opened.set_review(4, Review.ACCEPTED)
    with pytest.raises(CaseError) as told:
        opened.flush()
    assert str(told.value).endswith(".") and workspace.path in str(told.value)
    yield opened
    opened.close(discard=True)


def everything(case: Any) -> list[Any]:
    arrays = [*case.live.values(), *case.touched.values(), case.review]
    return [array.copy() for array in arrays]


def same(one: list[Any], two: list[Any]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def test_strokes_come_back_as_they_were_made(
    workspace: Workspace, broken: OpenCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(broken, tmp_path / "stick")
    assert path.parent == tmp_path / "stick" and broken.id in path.name
    known, history, case_id = everything(broken), broken.history(), broken.id
    broken.close(discard=True)
    monkeypatch.undo()
    with OpenCase(workspace, case_id) as again:
        assert not same(everything(again), known)
        (change,) = bring_back(again, path)
        assert (change.group, change.z, len(change.before)) == ("lesions", 1, 35)
        assert (again.live["lesions"][change.index] == change.after).all()
        assert same(everything(again), known)
        assert again.history() == history
        assert bring_back(again, path) == []
    with OpenCase(workspace, case_id) as again:
        assert same(everything(again), known)
        assert again.history() == history
        assert (again.state_at(3).labels["lesions"][1] == 2).sum() == 35
        assert bring_back(again, path) == []


def test_they_come_back_into_a_case_that_went_on_without_them(
    workspace: Workspace, broken: OpenCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(broken, tmp_path)
    known, case_id = everything(broken), broken.id
    broken.close(discard=True)
    monkeypatch.undo()
    with OpenCase(workspace, case_id) as again:
        stroke(again, 1, 4)
        stroke(again, 2, 4)
        (change,) = bring_back(again, path)
        assert change.z == 1
        assert np.array_equal(again.live["lesions"][1], known[1][1])
        assert (again.live["lesions"][2] == 4).sum() == 35  # was not the session's
        assert again.review[4] == Review.ACCEPTED
        last = again.history()[-1]
        assert (last.tool, last.slices) == ("rescue", (1, 4))
        assert bring_back(again, path) == []
        assert (again.state_at(last.number - 1).labels["lesions"][1] == 4).sum() == 35


def test_a_disk_that_has_room_again_needs_no_file(
    workspace: Workspace, broken: OpenCase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(broken, tmp_path)
    monkeypatch.undo()
    broken.flush()
    stroke(broken, 1, 4)
    assert bring_back(broken, path) == []
    assert (broken.live["lesions"][1] == 4).sum() == 35


def test_a_drive_that_is_gone_takes_nothing_with_it(
    workspace: Workspace, case_id: str, tmp_path: Path
) -> None:
    opened = OpenCase(workspace, case_id)
    opened.flush()
    away = Path(workspace.path).rename(Path(workspace.path).with_name("unplugged"))
    stroke(opened, 3, 2)
    paint(opened, "lungs", 4, 1)
    with pytest.raises(CaseError):
        opened.flush()
    path = save(opened, tmp_path / "here")
    known = everything(opened)
    opened.close(discard=True)
    away.rename(workspace.path)
    with OpenCase(workspace, case_id) as again:
        bring_back(again, path)
        assert same(everything(again), known)
    with OpenCase(workspace, case_id) as again:
        assert same(everything(again), known)


def test_a_file_that_does_not_belong_here(
    workspace: Workspace, broken: OpenCase, tmp_path: Path, scan_maker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save(broken, tmp_path)
    monkeypatch.undo()
    broken.close()
    damaged = tmp_path / "damaged"
    damaged.write_bytes(path.read_bytes()[100:])
    (tmp_path / "empty").write_bytes(b"")
    with OpenCase(workspace, workspace.add_case(scan_maker(seed=1))) as other:
        for wrong, words in (
            (path, f"belongs to case .*{broken.id}"),
            (tmp_path / "none", "is missing"),
            (tmp_path / "empty", "holds no strokes"),
            (damaged, "holds no strokes"),
        ):
            with pytest.raises(CaseError, match=words) as told:
                bring_back(other, wrong)
            assert str(told.value).endswith(".") and "\n" not in str(told.value)
        monkeypatch.setattr(rescue_module, "FORMAT", 0)
        with pytest.raises(CaseError, match="newer"):
            bring_back(other, path)


def test_an_elsewhere_that_cannot_be_written_either(broken: OpenCase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CaseError, match="session's strokes"):
        save(broken, tmp_path / "file")
    assert broken.pending
    assert list(tmp_path.glob("*.covseg-strokes")) == []


def test_what_is_read_only_has_nothing_to_save(workspace: Workspace, case_id: str, tmp_path: Path) -> None:
    seen = OpenCase(workspace, case_id, read_only=True)
    for action in (lambda: save(seen, tmp_path), lambda: bring_back(seen, tmp_path / "it")):
        with pytest.raises(CaseError, match="read-only"):
            action()
