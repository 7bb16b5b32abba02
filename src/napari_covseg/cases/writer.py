"""A thread that writes what has changed, so that painting never waits for the disk."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from napari_covseg.errors import CaseError

_log = logging.getLogger(__name__)

Key = tuple[int, str, int]
"""(rank, array, slice): what has changed. Lower ranks are written first."""


class BackgroundWriter:
    """Writes keys in a thread; a key that changes again before it is written is written once.

    Parameters
    ----------
    save : callable
        Writes one key; what it raises keeps the key, and all that would have followed it.
    delay : float
        Seconds to wait for more changes before a batch is written.
    on_error : callable, optional
        Called in the writer's thread with the first error of a batch.
    """

    def __init__(
        self,
        save: Callable[[Key], None],
        *,
        delay: float = 0.1,
        on_error: Callable[[CaseError], None] | None = None,
    ) -> None:
        self._save = save
        self._delay = delay
        self._on_error = on_error
        self._condition = threading.Condition()
        self._dirty: set[Key] = set()
        self._writing = 0
        self._urgent = False
        self._closing = False
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="covseg-writer", daemon=True)
        self._thread.start()

    def schedule(self, keys: Iterable[Key]) -> None:
        """Have `keys` written soon; after an error this also tries again."""
        with self._condition:
            self._dirty.update(keys)
            self._error = None
            self._condition.notify_all()

    @property
    def pending(self) -> bool:
        """Whether something is not on disk yet."""
        with self._condition:
            return bool(self._writing or self._dirty)

    @property
    def backlog(self) -> int:
        """How many keys wait or are being written; 0 after an error, when waiting does not help."""
        with self._condition:
            return 0 if self._error is not None else self._writing + len(self._dirty)

    def flush(self) -> None:
        """Write everything now and wait for it.

        Raises
        ------
        CaseError
            If something could not be written; it is kept, and a later flush tries again.
        """
        with self._condition:
            self._error = None
            self._urgent = True
            self._condition.notify_all()
            self._condition.wait_for(self._settled)
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

    def _settled(self) -> bool:
        return not self._writing and (self._error is not None or not self._dirty)

    def _due(self) -> bool:
        return self._closing or (bool(self._dirty) and self._error is None)

    def _work(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(self._due)
                self._condition.wait_for(lambda: self._urgent or self._closing, self._delay)
                if self._closing:
                    return
                batch, self._dirty = sorted(self._dirty), set()
                self._writing = len(batch)
            error, left = self._write(batch)
            with self._condition:
                self._dirty.update(left)
                self._error = error
                self._writing = 0
                self._condition.notify_all()
            if error is not None:
                self._report(error)

    def _write(self, batch: list[Key]) -> tuple[Exception | None, list[Key]]:
        """Write in order up to the first error; the order is what keeps a person's voxels safe."""
        for index, key in enumerate(batch):
            try:
                self._save(key)
            except Exception as error:  # a thread that dies silently would lose all that follows
                return error, batch[index:]
        return None, []

    def _report(self, error: Exception) -> None:
        if not isinstance(error, CaseError):
            _log.error("the writer failed", exc_info=error)
        elif self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:  # the listener's fault must not stop the writing
                _log.exception("nobody was told that %s", error)
