"""Only one has a case open for editing, and a dead process has none."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from napari_covseg.cases.lock import Lock, holder
from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.errors import CaseError

HOLD = """
import sys
from pathlib import Path
from napari_covseg.cases.lock import Lock, holder
lock = Lock(Path(sys.argv[1]), "it")
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_opener_is_told_who_has_it(workspace: Workspace, case_id: str) -> None:
    with OpenCase(workspace, case_id):
        with pytest.raises(CaseError) as told:
            OpenCase(workspace, case_id)
        seen = OpenCase(workspace, case_id, read_only=True)
    text = str(told.value)
    assert seen.held_by in text and f"process {os.getpid()}" in seen.held_by
    assert re.search(r" on \S+ \(process \d+\) since \d{4}-\d\d-\d\d \d\d:\d\d", text)
    assert OpenCase(workspace, case_id, read_only=True).held_by == ""
    assert 'Case "Patient 7 / chest"' in text
    assert "process" in text and "read-only" in text
    assert text.count(".") == 1 and "\n" not in text
    OpenCase(workspace, case_id).close()


def test_the_system_gives_a_killed_process_s_lock_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None and other.stdout.readline().strip() == b"held"
        with pytest.raises(CaseError, match=rf"it is already open by .*\(process {other.pid}\)"):
            Lock(path, "it")
    finally:
        other.kill()
        other.communicate()
    Lock(path, "it").release()


def test_looking_who_has_it_takes_nothing(tmp_path: Path) -> None:
    assert holder(tmp_path / "lock") == ""
    lock = Lock(tmp_path / "lock", "it")
    assert str(os.getpid()) in holder(tmp_path / "lock")
    lock.release()
    (tmp_path / "lock").write_text(json.dumps({"user": "ada", "host": "ws3", "pid": 7}))
    assert holder(tmp_path / "lock") == ""  # it died, and its name is still there
    Lock(tmp_path / "lock", "it").release()


def test_a_lock_from_before_it_said_since_when(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "it")
    (tmp_path / "lock").write_text(json.dumps({"user": "ada", "host": "ws3", "pid": 7}))
    assert holder(tmp_path / "lock") == "ada on ws3 (process 7)"
    lock.release()


def test_a_given_back_lock_says_nothing_of_its_holder(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "it")
    assert (tmp_path / "lock").read_text()
    lock.release()
    lock.release()
    assert not (tmp_path / "lock").read_text()


def test_a_message_without_a_name(tmp_path: Path) -> None:
    lock = Lock(tmp_path / "lock", "it")
    (tmp_path / "lock").write_text("?")
    with pytest.raises(CaseError, match="open by another process"):
        Lock(tmp_path / "lock", "it")
    lock.release()
