from __future__ import annotations

import threading

import pytest

from napari_covseg.jobs.predict_case import AHEAD, SliceWriter


def test_everything_is_written_in_order() -> None:
    written: list[int] = []
    with SliceWriter(written.append) as writer:
        for z in range(50):
            writer.put(z)
    assert written == list(range(50))


def test_written_tells_each_item_once() -> None:
    with SliceWriter(lambda z: None) as writer:
        writer.put(1)
        writer.put(2)
        assert writer.written(wait=True) == [1, 2]
        assert writer.written(wait=True) == []


def test_an_item_is_told_only_after_it_is_written() -> None:
    go_on = threading.Event()
    with SliceWriter(lambda z: go_on.wait()) as writer:
        writer.put(1)
        assert writer.written() == []
        go_on.set()
        assert writer.written(wait=True) == [1]


def test_an_error_reaches_who_puts() -> None:
    def fail(z: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), SliceWriter(fail) as writer:
        for z in range(3 * AHEAD):  # must not wait for ever either
            writer.put(z)


def test_an_error_of_the_last_item_is_not_lost() -> None:
    def fail(z: int) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), SliceWriter(fail) as writer:
        writer.put(1)


def test_leaving_by_an_exception_still_writes() -> None:
    written: list[int] = []
    with pytest.raises(KeyError), SliceWriter(written.append) as writer:
        writer.put(1)
        raise KeyError
    assert written == [1]
