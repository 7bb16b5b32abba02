"""The warm child in which jobs run: ``python -m napari_covseg.jobs.child PARENT_PID``.

Requests come over stdin, events leave over stdout (see `messages`), everything that is
printed goes to stderr. The child works at the lowest priority and never outlives its
viewer.
"""

from __future__ import annotations

import ctypes
import datetime
import os
import pickle
import platform
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import platformdirs

from napari_covseg.errors import CovsegError
from napari_covseg.jobs.events import Cancelled, Event, Failed, Started
from napari_covseg.jobs.messages import Cancel, Focus, FreeGPU, Shutdown, Submit, pack, read_message
from napari_covseg.jobs.run import run
from napari_covseg.jobs.steps import Control, JobCancelled

REPORTS_KEPT = 20  # newest crash reports that stay
IDLE_SECONDS = 60.0  # without work, after which GPU memory is given back
_PR_SET_PDEATHSIG = 1


@dataclass
class _Entry:
    job_id: int
    job: object
    priority: int
    control: Control = field(default_factory=Control)
    steps: Generator[Event, None, None] | None = None
    cancelled: bool = False
    notified: bool = False
    last_turn: int = 0
    last_event: Event | None = None


class Scheduler:
    """Interleaves jobs step by step.

    `submit`, `cancel`, `focus` and `stop` may be called from any thread; `turn` and
    `close` belong to the one thread that does the work.

    Parameters
    ----------
    send : callable
        Takes (job id, event); called from several threads.
    """

    def __init__(self, send: Callable[[int, Event], None]) -> None:
        self._send = send
        self._entries: dict[int, _Entry] = {}
        self._changed = threading.Condition()
        self._turns = 0
        self._wake = False
        self.stopped = False

    @property
    def busy(self) -> bool:
        """Whether any job is waiting or running."""
        return bool(self._entries)

    def submit(self, job_id: int, job: object, priority: int = 0) -> None:
        """Queue a job."""
        with self._changed:
            self._turns += 1
            self._entries[job_id] = _Entry(job_id, job, priority, last_turn=self._turns)
            self._changed.notify()

    def cancel(self, job_id: int) -> None:
        """End a job: at once if it has not begun, else before its next step."""
        with self._changed:
            entry = self._entries.get(job_id)
            if entry is None:
                return
            if entry.steps is not None:
                entry.cancelled = True
                self._changed.notify()
                return
            del self._entries[job_id]
        self._send(job_id, Cancelled())

    def focus(self, job_id: int, z: int) -> None:
        """Tell a job which slice a person looks at; it hears it during its step."""
        entry = self._entries.get(job_id)
        if entry is not None:
            entry.control.focus(z)

    def wake(self) -> None:
        """Make a `turn` that waits return."""
        with self._changed:
            self._wake = True
            self._changed.notify()

    def stop(self) -> None:
        """Ask the working thread to end."""
        self.stopped = True
        self.wake()

    def turn(self, timeout: float | None = None) -> bool:
        """Run one step of one job, waiting up to `timeout` s for one; False if there was none."""
        with self._changed:
            self._changed.wait_for(lambda: self._entries or self._wake, timeout)
            self._wake = False
            if not self._entries or self.stopped:
                return False
            entry = min(self._entries.values(), key=lambda e: (not e.cancelled, -e.priority, e.last_turn))
            self._turns += 1
            entry.last_turn = self._turns
            first = entry.steps is None
            if entry.steps is None:
                entry.steps = run(entry.job, entry.control)
        if first:
            self._send(entry.job_id, Started(entry.job_id))
        self._step(entry, entry.steps)
        return True

    def close(self) -> None:
        """Cancel every job."""
        for job_id, entry in list(self._entries.items()):
            self.cancel(job_id)
            while entry.steps is not None and job_id in self._entries:
                self._step(entry, entry.steps)

    def _step(self, entry: _Entry, steps: Generator[Event, None, None]) -> None:
        try:
            if entry.cancelled and not entry.notified:
                entry.notified = True
                event = steps.throw(JobCancelled())
            else:
                event = next(steps)
        except StopIteration:
            self._end(entry, None)
        except JobCancelled:
            self._end(entry, Cancelled())
        except CovsegError as error:
            self._end(entry, Failed(str(error), user_error=True))
        except Exception as error:
            self._end(entry, Failed(write_crash_report(entry.job, error), user_error=False))
        else:
            # A job that waits repeats itself; nobody needs to hear that.
            if event != entry.last_event:
                entry.last_event = event
                self._send(entry.job_id, event)

    def _end(self, entry: _Entry, event: Event | None) -> None:
        with self._changed:
            self._entries.pop(entry.job_id, None)
        if event is not None:
            self._send(entry.job_id, event)


class Child:
    """Reads messages in one thread and runs jobs in the main one."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._writing = threading.Lock()
        self._free_wanted = False
        self._scheduler = Scheduler(self._send)

    def work(self) -> None:
        """Run jobs until the viewer closes the child."""
        threading.Thread(target=self._read, name="covseg-requests", daemon=True).start()
        while not self._scheduler.stopped:
            worked = self._scheduler.turn(IDLE_SECONDS)
            if not self._scheduler.busy and (self._free_wanted or not worked):
                self._free_wanted = False
                _free_gpu()
        self._scheduler.close()

    def _read(self) -> None:
        while True:
            try:
                message = read_message(self._requests)
            except (EOFError, OSError):
                os._exit(0)  # the viewer is gone, whatever the other threads are doing
            match message:
                case Submit(job_id, job, priority):
                    self._submit(job_id, job, priority)
                case Cancel(job_id):
                    self._scheduler.cancel(job_id)
                case Focus(job_id, z):
                    self._scheduler.focus(job_id, z)
                case FreeGPU():
                    self._free_wanted = True
                    self._scheduler.wake()
                case Shutdown():
                    self._scheduler.stop()

    def _submit(self, job_id: int, pickled: bytes, priority: int) -> None:
        try:
            job = pickle.loads(pickled)
        except Exception as error:  # whatever importing its module raises
            self._send(job_id, Failed(write_crash_report(pickled, error), user_error=False))
        else:
            self._scheduler.submit(job_id, job, priority)

    def _send(self, job_id: int, event: Event) -> None:
        data = pack((job_id, event))
        try:
            with self._writing:
                self._answers.write(data)
                self._answers.flush()
        except OSError:
            os._exit(0)


def main() -> None:
    """Take over the pipes, step back in priority, watch the parent, and work."""
    parent = int(sys.argv[1])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the viewer's; its end is ours
    _step_back()
    _end_with(parent)
    requests = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    # A stray print or read, also one from C, must not reach the pipes.
    os.dup2(2, 1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    Child(requests, answers).work()
    sys.stderr.flush()
    os._exit(0)  # without waiting for threads that still read a scan


def _step_back() -> None:
    """Go to the lowest priority; on Windows the parent has set it."""
    if hasattr(os, "nice"):
        os.nice(19)


def _end_with(parent: int) -> None:
    """End when the process `parent` ends, even if something keeps our pipes open."""
    if sys.platform == "win32":
        return
    if sys.platform == "linux":
        # Also ends a child that is stuck in C code. The kernel means the parent's thread
        # that started us: `ChildProcess` starts us from the thread that reads our answers.
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(0)

    threading.Thread(target=watch, name="covseg-parent", daemon=True).start()


def _free_gpu() -> None:
    memory = sys.modules.get("napari_covseg.jobs.memory")
    if memory is not None:  # else nothing was ever loaded
        memory.free_gpu()


def write_crash_report(job: object, error: BaseException) -> str:
    """Write the traceback to stderr and to a file, and return one line about it.

    Parameters
    ----------
    job : object
        The request that was running.
    error : BaseException
        What was raised, with its traceback.
    """
    text = "".join(traceback.format_exception(error))
    sys.stderr.write(text)
    what = traceback.format_exception_only(error)[-1].strip().splitlines()[0]
    line = f"A fault in the program stopped the {type(job).__name__.lower()} ({what})"
    try:
        path = _write(f"{job!r}\nPython {sys.version}, {platform.platform()}\n\n{text}")
    except OSError:
        return f"{line}; please report it."
    return f"{line}; please report it with {path}."


def _write(text: str) -> Path:
    folder = platformdirs.user_log_path("napari-covseg", ensure_exists=True)
    stamp = datetime.datetime.now().strftime("%Y%m%d-%H%M%S-%f")
    path = folder / f"fault-{stamp}-{os.getpid()}.txt"
    path.write_text(text, encoding="utf-8")
    for old in sorted(folder.glob("fault-*.txt"))[:-REPORTS_KEPT]:
        old.unlink(missing_ok=True)
    return path


if __name__ == "__main__":
    main()
