"""The warm child in which jobs run: ``python -m napari_covseg.jobs.child PARENT_PID``.

Requests come over stdin, events leave over stdout (see `messages`), everything that is
printed goes to stderr. The child works at the lowest priority and never outlives its
viewer.
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import sys
import threading
import time
from typing import BinaryIO

from napari_covseg.jobs.events import Event, Failed
from napari_covseg.jobs.faults import record_fault
from napari_covseg.jobs.messages import Cancel, Focus, FreeGPU, Shutdown, Submit, pack, read_message
from napari_covseg.jobs.schedule import Scheduler

IDLE_SECONDS = 60.0  # without work, after which GPU memory is given back
_PR_SET_PDEATHSIG = 1


class Child:
    """Reads messages in one thread and runs jobs in the main one."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._writing = threading.Lock()
        self._free_asked = False
        self._scheduler = Scheduler(self._send)

    def work(self) -> None:
        """Run jobs until the viewer closes the child."""
        threading.Thread(target=self._read, name="covseg-requests", daemon=True).start()
        while not self._scheduler.stopped:
            worked = self._scheduler.turn(IDLE_SECONDS)
            if not self._scheduler.busy and (self._free_asked or not worked):
                self._free_asked = False
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
                    self._free_asked = True
                    self._scheduler.wake()
                case Shutdown():
                    self._scheduler.stop()

    def _submit(self, job_id: int, pickled: bytes, priority: int) -> None:
        try:
            job = pickle.loads(pickled)
        except Exception as error:  # whatever importing its module raises
            self._send(job_id, Failed(record_fault(pickled, error), user_error=False))
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


if __name__ == "__main__":
    main()
