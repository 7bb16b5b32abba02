"""The background writer: in order, each change once, and no error lost."""

from __future__ import annotations

import threading
import time

import pytest

from napari_covseg.cases.writer import BackgroundWriter, Key
from napari_covseg.errors import CaseError

FAR = 3600.0  # only flush writes in these tests


def test_changes_are_written_once_and_in_order_of_rank() -> None:
    saved: list[Key] = []
    writer = BackgroundWriter(saved.append, delay=FAR)
    for _ in range(3):
        writer.schedule([(2, "", 0), (1, "a", 4), (1, "a", 3), (0, "a", 4)])
    assert writer.pending
    writer.flush()
    assert saved == [(0, "a", 4), (1, "a", 3), (1, "a", 4), (2, "", 0)]
    assert not writer.pending
    writer.stop()


def test_it_says_how_much_waits_as_long_as_waiting_helps() -> None:
    full = True
    counted: list[int] = []

    def save(key: Key) -> None:
        counted.append(writer.backlog)
        if full:
            raise CaseError("full")

    writer = BackgroundWriter(save, delay=FAR)
    writer.schedule([(0, "a", 0), (0, "a", 1)])
    assert writer.backlog == 2
    with pytest.raises(CaseError):
        writer.flush()
    assert writer.backlog == 0 and writer.pending  # nothing gets shorter while the disk is full
    full = False
    writer.flush()
    assert counted == [2, 2, 2] and writer.backlog == 0
    writer.stop()


def test_it_writes_without_being_asked() -> None:
    written = threading.Event()
    writer = BackgroundWriter(lambda key: written.set(), delay=0.001)
    writer.schedule([(0, "a", 0)])
    assert written.wait(60)
    writer.stop()


def test_what_changes_while_it_is_written_is_written_again() -> None:
    saved: list[Key] = []

    def save(key: Key) -> None:
        saved.append(key)
        if len(saved) == 1:
            writer.schedule([key])

    writer = BackgroundWriter(save, delay=0)
    writer.schedule([(0, "a", 1)])
    writer.flush()
    assert saved == [(0, "a", 1)] * 2
    writer.stop()


def test_an_error_keeps_what_was_not_written() -> None:
    saved: list[Key] = []
    told: list[CaseError] = []
    full = True

    def save(key: Key) -> None:
        if full and key[2] == 2:
            raise CaseError("full")
        saved.append(key)

    writer = BackgroundWriter(save, delay=FAR, on_error=told.append)
    writer.schedule([(0, "a", z) for z in range(4)])
    for _ in range(2):
        with pytest.raises(CaseError, match="full"):
            writer.flush()
    assert saved == [(0, "a", 0), (0, "a", 1)]
    full = False
    writer.flush()
    assert saved == [(0, "a", z) for z in range(4)]
    writer.stop()
    assert [str(error) for error in told] == ["full", "full"]


def test_an_error_is_not_tried_again_and_again_but_with_the_next_change() -> None:
    tries: list[Key] = []
    failed = threading.Semaphore(0)

    def save(key: Key) -> None:
        tries.append(key)
        raise CaseError("full")

    writer = BackgroundWriter(save, delay=0, on_error=lambda error: failed.release())
    writer.schedule([(0, "a", 1)])
    assert failed.acquire(timeout=60)
    time.sleep(0.05)
    assert len(tries) == 1
    writer.schedule([(0, "a", 0)])
    assert failed.acquire(timeout=60)
    writer.stop()
    assert tries == [(0, "a", 1), (0, "a", 0)]
    assert writer.pending


def test_a_fault_of_the_program_or_of_the_listener_does_not_end_it() -> None:
    def save(key: Key) -> None:
        raise faults.pop() if faults else AssertionError

    def listen(error: CaseError) -> None:
        raise RuntimeError("listener")

    faults: list[Exception] = [CaseError("full"), ZeroDivisionError()]
    writer = BackgroundWriter(save, delay=FAR, on_error=listen)
    writer.schedule([(0, "a", 1)])
    with pytest.raises(ZeroDivisionError):
        writer.flush()
    with pytest.raises(CaseError):
        writer.flush()
    with pytest.raises(AssertionError):
        writer.flush()
    writer.stop()
