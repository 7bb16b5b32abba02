from __future__ import annotations

import io
import os
import queue
import threading
from collections.abc import Iterator

import pytest
from listening import PATIENCE
from tiny_jobs import Wait

from napari_covseg.jobs import child
from napari_covseg.jobs.messages import FreeGPU, Shutdown, Submit, pack

# The thread that reads ends the process; here only itself, and pytest would mention that.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")


@pytest.fixture
def freed(monkeypatch: pytest.MonkeyPatch) -> queue.SimpleQueue[str]:
    calls: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(child, "_free_gpu", lambda: calls.put("freed"))
    return calls


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.BufferedWriter]:
    """Start a child's work in a thread of this process; what is written reaches it."""
    ended = threading.Event()

    def end(code: int) -> None:
        ended.set()
        raise SystemExit

    monkeypatch.setattr(os, "_exit", end)
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as requests, os.fdopen(writing, "wb") as stream:
        worker = threading.Thread(target=child.Child(requests, io.BytesIO()).work)
        worker.start()
        yield stream
        stream.write(pack(Shutdown()))
        stream.flush()
        worker.join(PATIENCE)
        stream.close()
        assert ended.wait(PATIENCE)  # the end of the requests is the end of the child


def test_gpu_memory_is_given_back_on_request(write: io.BufferedWriter, freed: queue.SimpleQueue[str]) -> None:
    write.write(pack(FreeGPU()))
    write.flush()
    assert freed.get(timeout=PATIENCE) == "freed"


def test_gpu_memory_is_not_taken_from_a_running_job(write, freed, monkeypatch) -> None:
    import pickle

    states: list[bool] = []
    monkeypatch.setattr(child, "_free_gpu", lambda: states.append(running.is_set()) or freed.put("freed"))
    running, real = threading.Event(), child.Scheduler.turn

    def turn(self: child.Scheduler, timeout: float) -> bool:
        worked = real(self, timeout)
        running.set() if self.busy else running.clear()
        return worked

    monkeypatch.setattr(child.Scheduler, "turn", turn)
    write.write(pack(Submit(1, pickle.dumps(Wait(0.3)))) + pack(FreeGPU()))
    write.flush()
    assert freed.get(timeout=PATIENCE) == "freed"
    assert states == [False]


def test_gpu_memory_is_given_back_after_an_idle_time(monkeypatch, freed, request) -> None:
    monkeypatch.setattr(child, "IDLE_SECONDS", 0.01)
    request.getfixturevalue("write")
    assert freed.get(timeout=PATIENCE) == "freed"
