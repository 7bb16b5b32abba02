"""Jobs for the viewer: submit, cancel, poll events. Neither torch nor Qt is loaded here."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from napari_covseg.errors import JobError
from napari_covseg.jobs.allocator import KEEP_FREED
from napari_covseg.jobs.events import END, Event, Failed
from napari_covseg.jobs.messages import Cancel, Focus, FreeGPU, Shutdown, Submit, pack, read_message
from napari_covseg.jobs.requests import WarmUp

WARM_UP_PRIORITY = -100
LOG_LINES = 200
ENDS_WITHIN = 0.7  # seconds that a child has to finish a slice and end, before it is killed


class JobClient:
    """Runs jobs in one warm child process, which is started again after it died.

    All methods return at once (`close` within a second) and belong to one thread.

    Parameters
    ----------
    wake : callable, optional
        Called **from another thread** whenever `poll` has something to fetch.
    on_death : callable, optional
        Takes one sentence; called by `poll`, or by `submit` if it comes first, once for
        every child that died.
    """

    def __init__(
        self,
        wake: Callable[[], None] | None = None,
        on_death: Callable[[str], None] | None = None,
    ) -> None:
        self.on_death = on_death
        self._wake = wake or (lambda: None)
        self._ids = itertools.count(1)
        self._running: set[int] = set()
        self._quiet: set[int] = set()  # warm-ups, of which no event is passed on
        self._events: list[tuple[int, Event]] = []  # received, not yet polled
        self._child: ChildProcess | None = None
        self._stop: Callable[[], object] = lambda: None

    @property
    def pid(self) -> int | None:
        """Process id of the child, None without one."""
        return self._child.pid if self._child is not None else None

    @property
    def log(self) -> list[str]:
        """The last lines that the child printed."""
        return list(self._child.log) if self._child is not None else []

    def start(self, warm_up: WarmUp | None = None) -> None:
        """Start the child, and let it load what predictions need while it has nothing to do.

        Raises
        ------
        JobError
            If no process can be started.
        """
        self._live_child()
        if warm_up is not None:
            self._quiet.add(self._send_job(warm_up, WARM_UP_PRIORITY))

    def submit(self, job: object, priority: int = 0) -> int:
        """Queue a request and return the job's id; starts the child if there is none.

        Parameters
        ----------
        job : Request
            What to do.
        priority : int
            Higher goes first, equals take turns.

        Raises
        ------
        JobError
            If no process can be started.
        """
        self._live_child()
        job_id = self._send_job(job, priority)
        self._running.add(job_id)
        return job_id

    def cancel(self, job_id: int) -> None:
        """Ask a job to stop; a `Cancelled` follows, finished slices are kept."""
        self._send(Cancel(job_id))

    def focus(self, job_id: int, z: int) -> None:
        """Tell a job which slice is on screen; also while it is in the middle of a step."""
        if job_id in self._running:
            self._send(Focus(job_id, z))

    def free_gpu(self) -> None:
        """Give GPU memory back: at once, or after the jobs that are running."""
        self._send(FreeGPU())

    def poll(self) -> list[tuple[int, Event]]:
        """Return what has happened since the last call, in order, as (job id, event)."""
        self._receive()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """End the child, within a second if jobs run, which keep what they have finished, else at once."""
        if self._child is not None and not self._running:
            self._child.ends_within = 0.0  # one that still loads torch would not listen in time
        self._stop()
        self._child = None
        self._running.clear()

    def _receive(self, wait: float = 0) -> None:
        """Take what is in the inbox; with `wait` also what comes until the child's end."""
        while self._child is not None:
            try:
                item = self._child.inbox.get(block=wait > 0, timeout=wait or None)
            except queue.Empty:
                return
            if isinstance(item, _Ended):
                self._on_death(item)
            elif item[0] not in self._quiet:
                self._events.append(item)
                if isinstance(item[1], END):
                    self._running.discard(item[0])

    def _live_child(self) -> ChildProcess:
        if self._child is not None and not self._child.alive:
            self._receive(wait=2)  # a death that nobody has polled must not take the next job along
            if self._child is not None:
                self._on_death(_Ended("it stopped answering"))
        if self._child is None:
            self._child = ChildProcess(self._wake)
            # Also ends the child at the interpreter's exit.
            self._stop = weakref.finalize(self, self._child.stop)
        return self._child

    def _send_job(self, job: object, priority: int) -> int:
        job_id = next(self._ids)
        self._send(Submit(job_id, pickle.dumps(job), priority))
        return job_id

    def _send(self, message: object) -> None:
        if self._child is not None:
            self._child.send(message)

    def _on_death(self, ended: _Ended) -> None:
        message = (
            f"The computing process ended unexpectedly ({ended.reason}); what it had finished is kept, "
            "and the next job starts a new one."
        )
        self._stop()
        self._child = None
        self._events += [(job_id, Failed(message, user_error=False)) for job_id in sorted(self._running)]
        self._running.clear()
        if self.on_death is not None:
            self.on_death(message)


@dataclass(frozen=True)
class _Ended:
    """The child is gone.

    Attributes
    ----------
    reason : str
        Half a sentence for a person.
    """

    reason: str


class ChildProcess:
    """Starts ``python -m napari_covseg.jobs.child`` and moves messages.

    Parameters
    ----------
    on_message : callable
        Called from a thread, after something was put into `inbox`.

    Attributes
    ----------
    inbox : queue.SimpleQueue
        Pairs (job id, event) in order; the last item is an `_Ended`.
    log : collections.deque of str
        The last lines the child printed.
    ends_within : float
        Seconds that `stop` gives the child to end by itself.
    """

    def __init__(self, on_message: Callable[[], None]) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.ends_within = ENDS_WITHIN
        self._on_message = on_message
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._started: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        threading.Thread(target=self._live, name="covseg-child", daemon=True).start()
        answer = self._started.get()
        if isinstance(answer, OSError):
            raise JobError(f"The computing process cannot be started ({answer}).") from answer
        self._process = answer

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def send(self, message: object) -> None:
        """Queue a message; never waits for the child."""
        self._outbox.put(pack(message))

    def stop(self) -> None:
        """End the process within a second; its last slice is finished if that is in time."""
        self._on_message = _ignore
        if self.alive:
            self.send(Shutdown())
            try:
                self._process.wait(self.ends_within)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._outbox.put(None)

    def _live(self) -> None:
        """Start the process, pass on what it says until it ends, and say why it did.

        All in one thread, because Linux ends the child with the thread that started it.
        """
        try:
            process = _start()
        except OSError as error:
            self._started.put(error)
            return
        self._started.put(process)
        threading.Thread(target=self._write, args=(process,), name="covseg-outbox", daemon=True).start()
        log = threading.Thread(target=self._keep_log, args=(process,), name="covseg-log", daemon=True)
        log.start()
        with cast(BinaryIO, process.stdout) as answers:
            try:
                while True:
                    self.inbox.put(read_message(answers))
                    self._on_message()
            except (EOFError, OSError):
                code = process.wait()
        log.join(timeout=1)
        self._outbox.put(None)
        self.inbox.put(_Ended(_reason(code, self.log)))
        self._on_message()

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        while (data := self._outbox.get()) is not None:
            try:
                process.stdin.write(data)
                process.stdin.flush()
            except OSError:
                break  # `_live` hears of the end as well, and says so
        with contextlib.suppress(OSError):
            process.stdin.close()

    def _keep_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self.log.append(line.decode(errors="replace").rstrip())


def _ignore() -> None:
    """Stand in for a listener that is gone; it may not be called any more."""


def _start() -> subprocess.Popen[bytes]:
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.IDLE_PRIORITY_CLASS | subprocess.CREATE_NO_WINDOW
    # -P: a file called like a module in the user's folder must not be imported.
    command = [sys.executable, "-P", "-m", "napari_covseg.jobs.child", str(os.getpid())]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **KEEP_FREED},
        creationflags=flags,
    )


def _reason(code: int, log: collections.deque[str]) -> str:
    if code == -signal.SIGTERM:
        return "it was asked to end by another program"
    if sys.platform != "win32" and code == -signal.SIGKILL:
        return "it was killed, perhaps because the computer ran out of memory"
    if code < 0:
        return f"it crashed with signal {-code}"
    last = next((line for line in reversed(log) if line.strip()), "")
    return f"exit code {code}" + (f", {last}" if last else "")
