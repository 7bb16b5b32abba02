from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import psutil
import pytest
from listening import PATIENCE, Listener
from tiny_jobs import Count, Environment, Fail, Wait

from napari_covseg.jobs import client as client_module
from napari_covseg.jobs.client import JobClient
from napari_covseg.jobs.events import Cancelled, Failed, Finished, Notice, SlicesDone, Started

posix = pytest.mark.skipif(os.name != "posix", reason="signals and nice are POSIX")


def test_a_job_runs_to_its_end(client: JobClient, listener: Listener, tmp_path: Path) -> None:
    job_id = client.submit(Count(str(tmp_path / "count"), 3))
    events = listener.until_end(job_id)
    assert events == [Started(job_id), *(SlicesDone("count", (z,)) for z in range(3)), Finished()]


def test_the_child_is_warm(client: JobClient, listener: Listener, tmp_path: Path) -> None:
    client.start()
    pid = client.pid
    for name in "ab":
        listener.until_end(client.submit(Count(str(tmp_path / name), 1)))
    assert client.pid == pid


def test_cancel_keeps_finished_slices(client: JobClient, listener: Listener, tmp_path: Path) -> None:
    job_id = client.submit(Count(str(tmp_path / "count"), 10_000, seconds=0.01))
    listener.until(lambda: len(listener.of(job_id)) > 3)
    client.cancel(job_id)
    events = listener.until_end(job_id)
    assert events[-1] == Cancelled()
    lines = (tmp_path / "count").read_text().split()
    done = [str(event.slices[0]) for event in events if isinstance(event, SlicesDone)]
    assert lines == [*done, "end"]


def test_priority_passes_a_running_job(client: JobClient, listener: Listener, tmp_path: Path) -> None:
    long = client.submit(Count(str(tmp_path / "long"), 10_000, seconds=0.01))
    listener.until(lambda: listener.of(long))
    quick = client.submit(Count(str(tmp_path / "quick"), 20), priority=1)
    listener.until_end(quick)
    between = [i for i, (job_id, event) in enumerate(listener.heard) if job_id == quick]
    assert {job_id for job_id, _ in listener.heard[between[0] : between[-1] + 1]} == {quick}
    assert not any(isinstance(event, Finished) for event in listener.of(long))
    client.cancel(long)
    listener.until_end(long)


def test_focus_reaches_a_running_job(client: JobClient, listener: Listener, tmp_path: Path) -> None:
    job_id = client.submit(Count(str(tmp_path / "count"), 10_000, seconds=0.005))
    listener.until(lambda: listener.of(job_id))
    client.focus(job_id, 9_000)
    listener.until(lambda: SlicesDone("count", (9_000,)) in listener.of(job_id))
    after = listener.of(job_id).index(SlicesDone("count", (9_000,)))
    assert after < 1_000
    client.cancel(job_id)
    listener.until_end(job_id)


def test_wake_is_called_for_events(tmp_path: Path) -> None:
    woken = threading.Event()
    client = JobClient(wake=woken.set)
    client.submit(Count(str(tmp_path / "count"), 1))
    assert woken.wait(PATIENCE)
    client.close()


def test_prints_do_not_reach_the_pipe(client: JobClient, listener: Listener) -> None:
    events = listener.until_end(client.submit(Fail("print")))
    assert events[-2:] == [Notice("''"), Finished()]
    listener.until(lambda: any("nor that" in line for line in client.log))


def test_the_childs_environment_is_its_own(client: JobClient, listener: Listener) -> None:
    events = listener.until_end(client.submit(Environment(("MALLOC_MMAP_MAX_",))))
    assert Notice("MALLOC_MMAP_MAX_=0") in events
    assert Notice("torch=False") in events  # a job that needs no torch does not wait for it
    if os.name == "posix":
        assert Notice("nice=19") in events
    assert "MALLOC_MMAP_MAX_" not in os.environ


def test_a_request_the_child_cannot_read_fails_alone(
    client: JobClient, listener: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PYTHONPATH", "")
    events = listener.until_end(client.submit(Wait(0)))
    assert isinstance(events[-1], Failed) and "tiny_jobs" in events[-1].message
    assert client.pid is not None and psutil.pid_exists(client.pid)


@pytest.mark.slow
@pytest.mark.parametrize("moment", range(3))
@posix
def test_kill_9_of_the_child(tmp_path: Path, moment: int) -> None:
    deaths: list[str] = []
    client = JobClient(on_death=deaths.append)
    listener = Listener(client)
    job_id = client.submit(Count(str(tmp_path / "count"), 10_000, seconds=0.002))
    listener.until(lambda: listener.of(job_id))
    time.sleep(random.Random(moment).uniform(0, 0.3))
    assert client.pid is not None
    os.kill(client.pid, signal.SIGKILL)
    failed = listener.until_end(job_id)[-1]
    assert isinstance(failed, Failed) and not failed.user_error
    assert deaths == [failed.message] and "killed" in failed.message
    done = [e.slices[0] for e in listener.of(job_id) if isinstance(e, SlicesDone)]
    kept = [int(line) for line in (tmp_path / "count").read_text().split()]
    assert kept[: len(done)] == done
    again = client.submit(Count(str(tmp_path / "again"), 2))
    assert listener.until_end(again)[-1] == Finished()
    assert len(deaths) == 1
    client.close()


def test_a_death_nobody_polled_does_not_take_the_next_job_along(tmp_path: Path) -> None:
    woken = threading.Event()
    client = JobClient(wake=woken.set)
    client.start()
    psutil.Process(client.pid).kill()
    assert woken.wait(PATIENCE)  # it is dead and gone, and the client has not polled
    assert Listener(client).until_end(client.submit(Count(str(tmp_path / "count"), 1)))[-1] == Finished()
    client.close()


def test_the_death_message_has_the_last_words(client: JobClient, listener: Listener) -> None:
    failed = listener.until_end(client.submit(Fail("exit")))[-1]
    assert isinstance(failed, Failed) and "exit code 3, last words" in failed.message


def test_close_ends_the_child_and_lets_it_tidy_up(client: JobClient, listener: Listener, tmp_path) -> None:
    job_id = client.submit(Count(str(tmp_path / "count"), 10_000, seconds=0.01))
    listener.until(lambda: len(listener.of(job_id)) > 2)
    pid = client.pid
    client.close()
    assert client.pid is None
    assert pid is not None and not psutil.pid_exists(pid)
    assert (tmp_path / "count").read_text().endswith("end\n")


@pytest.mark.slow
def test_close_kills_a_child_that_does_not_listen(client: JobClient, listener: Listener, tmp_path) -> None:
    job_id = client.submit(Count(str(tmp_path / "count"), 2, seconds=1_000))
    listener.until(lambda: listener.of(job_id))
    child = psutil.Process(client.pid)
    client.close()
    child.wait(PATIENCE)
    assert not child.is_running()


def test_close_does_not_wait_for_a_child_that_has_nothing_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "ENDS_WITHIN", PATIENCE)
    client = JobClient()
    client.start()
    child = psutil.Process(client.pid)
    child.suspend()  # as one that loads torch, it does not listen
    start = time.monotonic()
    client.close()
    assert time.monotonic() - start < PATIENCE
    child.wait(PATIENCE)


PARENT = """
    import sys, time
    from napari_covseg.jobs.client import JobClient
    from tiny_jobs import Count

    client = JobClient()
    client.submit(Count(sys.argv[1], 2 if len(sys.argv) > 2 else 10_000, seconds=0.01))
    print(client.pid, flush=True)
    while not any(type(event).__name__ == "SlicesDone" for _, event in client.poll()):
        time.sleep(0.01)
    print("running", flush=True)
    if len(sys.argv) > 2:
        sys.exit(0)
    time.sleep(1_000)
"""


def start_parent(tmp_path: Path, *arguments: str) -> tuple[subprocess.Popen[str], psutil.Process]:
    script = tmp_path / "parent.py"
    script.write_text(textwrap.dedent(PARENT))
    parent = subprocess.Popen(
        [sys.executable, script, tmp_path / "count", *arguments], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = psutil.Process(int(parent.stdout.readline()))
    assert parent.stdout.readline() == "running\n"
    return parent, child


@pytest.mark.slow
@posix
def test_no_child_outlives_a_killed_viewer(tmp_path: Path) -> None:
    parent, child = start_parent(tmp_path)
    parent.kill()
    parent.communicate()
    child.wait(timeout=PATIENCE)
    assert not child.is_running()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks the kernel of Linux")
def test_not_even_a_child_that_cannot_notice_outlives_its_viewer(tmp_path: Path) -> None:
    parent, child = start_parent(tmp_path)
    child.suspend()
    parent.kill()
    parent.communicate()
    child.wait(timeout=PATIENCE)
    assert not child.is_running()


def test_no_child_outlives_a_viewer_that_exits(tmp_path: Path) -> None:
    parent, child = start_parent(tmp_path, "exit")
    parent.communicate(timeout=PATIENCE)
    assert parent.returncode == 0
    child.wait(timeout=PATIENCE)


def test_the_child_ends_when_its_input_closes(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "napari_covseg.jobs.child", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    child.communicate(timeout=PATIENCE)
    assert child.returncode == 0


def test_the_viewers_side_loads_neither_torch_nor_qt() -> None:
    code = (
        "import sys, napari_covseg.jobs.client, napari_covseg.jobs.events, napari_covseg.jobs.requests;"
        "print([m for m in ('torch', 'qtpy', 'napari', 'zarr', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
