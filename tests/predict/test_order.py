"""Every slice comes once, those near the reader first."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.predict.slices import SliceOrder


def everything(order: SliceOrder, number: int = 1) -> list[int]:
    taken: list[int] = []
    while batch := order.take(number):
        taken += batch
    return taken


def test_outwards_from_the_slice_on_screen_upper_one_first() -> None:
    assert everything(SliceOrder(7, 2)) == [2, 3, 1, 4, 0, 5, 6]


def test_begins_at_the_bottom_by_itself() -> None:
    assert everything(SliceOrder(4)) == [0, 1, 2, 3]


@given(st.integers(0, 60), st.integers(-5, 70), st.integers(1, 9))
def test_each_slice_once_nearest_first(count: int, first: int, number: int) -> None:
    order = SliceOrder(count, first)
    assert len(order) == count
    taken = everything(order, number)
    assert sorted(taken) == list(range(count))
    focus = min(max(first, 0), count - 1)
    distances = [abs(z - focus) for z in taken]
    assert distances == sorted(distances)
    assert len(order) == 0
    assert order.take(number) == []


@given(st.integers(1, 60), st.lists(st.tuples(st.integers(-5, 70), st.integers(1, 5)), max_size=20))
def test_after_each_refocus_the_nearest_that_is_left(count: int, moves: list[tuple[int, int]]) -> None:
    order, left = SliceOrder(count), set(range(count))
    for z, number in moves:
        order.refocus(z)
        focus = min(max(z, 0), count - 1)
        batch = order.take(number)
        assert len(batch) == min(number, len(left))
        left -= set(batch)
        assert all(abs(b - focus) <= abs(rest - focus) for b in batch for rest in left)
    assert sorted(everything(order)) == sorted(left)


def test_from_several_threads_each_slice_once() -> None:
    order, taken = SliceOrder(400), list[int]()

    def work(seed: int) -> None:
        while batch := order.take(3):
            taken.extend(batch)
            order.refocus(batch[0] * seed % 400)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in (3, 7, 11, 13)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(400))
