from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_covseg.jobs.client import JobClient

HERE = str(Path(__file__).parent)
sys.path.insert(0, HERE)  # for `tiny_jobs`, which the child must be able to import as well

from listening import Listener  # noqa: E402


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let the child find `tiny_jobs`, and keep fault files out of the user's folder."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")]))
    for name in ("XDG_STATE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "state"))


@pytest.fixture
def client() -> Iterator[JobClient]:
    with_child = JobClient()
    yield with_child
    with_child.close()


@pytest.fixture
def listener(client: JobClient) -> Listener:
    return Listener(client)
