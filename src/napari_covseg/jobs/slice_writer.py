"""Slices go to disk while the network works on the next ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, TypeVar

T = TypeVar("T")
AHEAD = 8  # slices that may wait, so that closing needs only a moment


class SliceWriter(Generic[T]):
    """One thread that writes what it is given, in order.

    As a context manager it writes everything that was put before it closes, also when
    the block is left by an exception or a cancellation.

    Parameters
    ----------
    write : callable
        Writes one item.
    """

    def __init__(self, write: Callable[[T], None]) -> None:
        self._write = write
        self._todo: queue.Queue[T | None] = queue.Queue(AHEAD)
        self._done: list[T] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="covseg-writer", daemon=True)

    def __enter__(self) -> SliceWriter[T]:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._todo.put(None)
        self._thread.join()
        if kind is None:
            self._raise()

    def put(self, item: T) -> None:
        """Queue an item; waits while too many do.

        Raises whatever writing an earlier one has raised.
        """
        self._raise()
        self._todo.put(item)

    def written(self, *, wait: bool = False) -> list[T]:
        """Return the items written since the last call; with `wait`, all that were put."""
        if wait:
            self._todo.join()
        self._raise()
        done, self._done = self._done, []
        return done

    def _work(self) -> None:
        while (item := self._todo.get()) is not None:
            if self._error is None:  # after an error only the queue is emptied
                try:
                    self._write(item)
                    self._done.append(item)
                except BaseException as error:  # raised in the thread that puts
                    self._error = error
            self._todo.task_done()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
