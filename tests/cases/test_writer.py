"""The background writer: soon, once for many changes, and no error lost."""

from __future__ import annotations

import threading
import time

import pytest

from napari_covseg.cases.writer import BackgroundWriter
from napari_covseg.errors import CaseError

FAR = 3600.0  # only flush writes in these tests


def test_many_changes_are_written_once() -> None:
    written: list[int] = []
    writer = BackgroundWriter(lambda: written.append(1), delay=FAR)
    writer.flush()
    assert not written  # as nothing has changed
    for _ in range(3):
        writer.wake()
    assert writer.pending
    writer.flush()
    assert written == [1] and not writer.pending
    writer.stop()


def test_it_writes_without_being_asked() -> None:
    written = threading.Event()
    writer = BackgroundWriter(written.set, delay=0.001)
    writer.wake()
    assert written.wait(60)
    writer.stop()


def test_what_changes_while_it_is_written_is_written_again() -> None:
    written: list[int] = []

    def write() -> None:
        written.append(1)
        if len(written) == 1:
            writer.wake()

    writer = BackgroundWriter(write, delay=0)
    writer.wake()
    writer.flush()
    assert written == [1, 1]
    writer.stop()


def test_an_error_is_told_and_what_it_left_stays_pending() -> None:
    told: list[CaseError] = []
    full = True

    def write() -> None:
        if full:
            raise CaseError("full")

    writer = BackgroundWriter(write, delay=FAR, on_error=told.append)
    writer.wake()
    for _ in range(2):
        with pytest.raises(CaseError, match="full"):
            writer.flush()
        assert writer.pending and writer.failed
    full = False
    writer.flush()
    assert not writer.pending and not writer.failed
    writer.stop()
    assert [str(error) for error in told] == ["full", "full"]


def test_an_error_is_not_tried_again_and_again_but_with_the_next_change() -> None:
    tries: list[int] = []
    failed = threading.Semaphore(0)

    def write() -> None:
        tries.append(1)
        raise CaseError("full")

    writer = BackgroundWriter(write, delay=0, on_error=lambda error: failed.release())
    writer.wake()
    assert failed.acquire(timeout=60)
    time.sleep(0.05)
    assert len(tries) == 1
    writer.wake()
    assert failed.acquire(timeout=60)
    writer.stop()
    assert len(tries) == 2
    assert writer.pending


def test_a_fault_of_the_program_or_of_the_listener_does_not_end_it() -> None:
    def write() -> None:
        raise faults.pop() if faults else AssertionError

    def listen(error: CaseError) -> None:
        raise RuntimeError("listener")

    faults: list[Exception] = [CaseError("full"), ZeroDivisionError()]
    writer = BackgroundWriter(write, delay=FAR, on_error=listen)
    writer.wake()
    with pytest.raises(ZeroDivisionError):
        writer.flush()
    with pytest.raises(CaseError):
        writer.flush()
    with pytest.raises(AssertionError):
        writer.flush()
    writer.stop()
