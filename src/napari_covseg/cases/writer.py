"""A thread that writes what has changed, so that painting never waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from napari_covseg.errors import CaseError

_log = logging.getLogger(__name__)


class BackgroundWriter:
    """Calls `write` in a thread, soon after something has changed.

    Parameters
    ----------
    write : callable
        Writes all that has changed. What it raises is kept for `flush`; it is called again
        with the next change, and goes on where it has failed.
    delay : float
        Seconds to wait for more changes before they are written.
    on_error : callable, optional
        Called in the writer's thread with the CaseError that `write` has raised.
    """

    def __init__(
        self,
        write: Callable[[], None],
        *,
        delay: float = 0.1,
        on_error: Callable[[CaseError], None] | None = None,
    ) -> None:
        self._write = write
        self._delay = delay
        self._on_error = on_error
        self._condition = threading.Condition()
        self._changed = self._writing = self._urgent = self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="covseg-writer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have what has changed written soon; after an error this also tries again."""
        with self._condition:
            self._changed = True
            self._error = None
            self._condition.notify_all()

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        with self._condition:
            return self._writing or self._changed

    @property
    def failed(self) -> bool:
        """Whether the last writing has failed, so that waiting does not help."""
        return self._error is not None

    def flush(self) -> None:
        """Write everything now and wait for it.

        Raises
        ------
        CaseError
            If something could not be written; a later flush tries again.
        """
        with self._condition:
            self._error = None
            self._urgent = True
            self._condition.notify_all()
            self._condition.wait_for(
                lambda: not self._writing and (self._error is not None or not self._changed)
            )
            self._urgent = False
            if self._error is not None:
                raise self._error

    def stop(self) -> None:
        """End the thread; what is not written is lost, so `flush` first."""
        with self._condition:
            self._closing = True
            self._condition.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._closing or (self._changed and self._error is None))
                self._condition.wait_for(lambda: self._urgent or self._closing, self._delay)
                if self._closing:
                    return
                self._changed, self._writing = False, True
            error = None
            try:
                self._write()
            except Exception as raised:  # a thread that dies silently would lose all that follows
                error = raised
            with self._condition:
                self._changed |= error is not None
                self._error = error
                self._writing = False
                self._condition.notify_all()
            if error is not None:
                self._report(error)

    def _report(self, error: Exception) -> None:
        if not isinstance(error, CaseError):
            _log.error("the writer failed", exc_info=error)
        elif self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:  # the listener's fault must not stop the writing
                _log.exception("nobody was told that %s", error)
