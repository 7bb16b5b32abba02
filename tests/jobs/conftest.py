from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from napari_covseg.cases.case import Case
from napari_covseg.cases.workspace import Workspace
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.requests import Predict

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


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from tiny_model import write_tiny_model

    return str(write_tiny_model(tmp_path_factory.mktemp("model") / "tiny.safetensors"))


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "workspace")


@pytest.fixture
def case(workspace: Workspace) -> Case:
    from tiny_model import tiny_scan

    return workspace.case(workspace.add_case(tiny_scan()))


@pytest.fixture
def predict(workspace: Workspace, case: Case, model: str) -> Predict:
    return Predict(workspace.path, case.id, model, first_slice=3, device="cpu", batch=2)
