"""Short work beside the viewer's thread (files, zarr), with its result or error brought back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from napari.utils.notifications import notification_manager, show_error

from napari_covseg.errors import CovsegError

T = TypeVar("T")


class Abandoned(Exception):
    """Raised by work that a person has cancelled; nothing is told about it."""


def in_background(
    call: Callable[[], T],
    then: Callable[[T], Any],
    on_error: Callable[[str], Any] | None = None,
) -> None:
    """Run `call` in a thread, then `then` with its result on the viewer's thread.

    Parameters
    ----------
    call : callable
        Must not touch layers or widgets.
    then : callable
        Takes the result.
    on_error : callable, optional
        Takes the sentence of what went wrong, after it was shown.
    """

    def failed(error: BaseException) -> None:
        show_exception(error)
        if on_error is not None:
            on_error(str(error))

    from napari.qt.threading import create_worker  # here, because it loads all of the viewer's window

    create_worker(call, _connect={"returned": then, "errored": failed})


def show_exception(error: BaseException) -> None:
    """Tell a person's error in its one sentence, and a fault of this package with its traceback."""
    if isinstance(error, CovsegError):
        show_error(str(error))
    elif not isinstance(error, Abandoned):
        notification_manager.receive_error(type(error), error, error.__traceback__)
