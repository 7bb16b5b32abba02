"""The viewer's end of one child process: its pipes, its threads and its end."""

from __future__ import annotations

import collections
import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from napari_covseg.errors import JobError
from napari_covseg.jobs.allocator import KEEP_FREED
from napari_covseg.jobs.messages import Shutdown, pack, read_message

LOG_LINES = 200
ENDS_WITHIN = 0.7  # seconds that a child has to finish a slice and end, before it is killed


@dataclass(frozen=True)
class Ended:
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
    heard : callable
        Called from a thread, after something was put into `inbox`.

    Attributes
    ----------
    inbox : queue.SimpleQueue
        Pairs (job id, event) in order; the last item is an `Ended`.
    log : collections.deque of str
        The last lines the child printed.
    """

    def __init__(self, heard: Callable[[], None]) -> None:
        self.inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._heard = heard
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
        self._heard = _nobody_listens
        if self.alive:
            self.send(Shutdown())
            try:
                self._process.wait(ENDS_WITHIN)
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
                    self._heard()
            except (EOFError, OSError):
                code = process.wait()
        log.join(timeout=1)
        self._outbox.put(None)
        self.inbox.put(Ended(_reason(code, self.log)))
        self._heard()

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


def _nobody_listens() -> None:
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
