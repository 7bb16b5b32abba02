from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from napari_covseg.errors import ModelError
from napari_covseg.jobs import memory


def test_a_model_is_loaded_once(model: str) -> None:
    first = memory.loaded_model(Path(model), "cpu")
    assert memory.loaded_model(Path(model), "cpu") is first


def test_a_file_that_changed_is_loaded_again(model: str, tmp_path: Path) -> None:
    file = tmp_path / "copy.safetensors"
    file.write_bytes(Path(model).read_bytes())
    first = memory.loaded_model(file, "cpu")
    os.utime(file, ns=(0, 0))
    assert memory.loaded_model(file, "cpu") is not first


def test_a_model_is_tried_once(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[object] = []
    monkeypatch.setattr(memory, "warm_up", tried.append)
    file = tmp_path / "copy.safetensors"
    file.write_bytes(Path(model).read_bytes())
    memory.warm_model(file, "cpu")
    memory.warm_model(file, "cpu")  # the next case is opened
    assert tried == [memory.loaded_model(file, "cpu")]
    os.utime(file, ns=(0, 0))
    memory.warm_model(file, "cpu")
    assert len(tried) == 2


def test_freeing_the_gpu_forgets_what_is_there_only(model: str, monkeypatch) -> None:
    kept = memory.loaded_model(Path(model), "cpu")
    monkeypatch.setitem(memory._loaded, ("x", 0, "cuda"), kept)
    memory.free_gpu()
    assert ("x", 0, "cuda") not in memory._loaded
    assert memory.loaded_model(Path(model), "cpu") is kept


def test_a_device_that_is_not_there_is_refused(model: str) -> None:
    with pytest.raises(ModelError, match="abacus"):
        memory.loaded_model(Path(model), "abacus")


@pytest.fixture
def any_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("any_number_of_threads")
def test_all_cores_are_used(model: str) -> None:
    torch.set_num_threads(1)
    memory.loaded_model(Path(model), "cpu")
    assert torch.get_num_threads() == memory.core_count()
    assert 1 <= memory.core_count() <= (os.cpu_count() or 1)


@pytest.mark.usefixtures("any_number_of_threads")
@pytest.mark.parametrize(("said", "threads"), [("3", 3), ("0", None), ("many", None)])
def test_fewer_threads_may_be_asked_for(
    said: str, threads: int | None, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = memory.core_count()
    monkeypatch.setenv("OMP_NUM_THREADS", said)
    memory.loaded_model(Path(model), "cpu")
    assert torch.get_num_threads() == (threads or usual)


@pytest.mark.usefixtures("any_number_of_threads")
@pytest.mark.parametrize(("text", "most"), [("150000 100000", 2), ("max 100000", 10_000), ("junk", 10_000)])
def test_a_containers_limit_is_respected(text: str, most: int, monkeypatch) -> None:
    monkeypatch.setattr(Path, "read_text", lambda self: text)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(10_000)), raising=False)
    assert memory.core_count() == most
