from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.learn.corrections import HOLD_OUT_FROM, choose_sides, split
from napari_covseg.learn.slices import LabelledSlices, SliceId

ids = st.tuples(st.sampled_from(["anna", "bert", "cleo"]), st.integers(0, 400))


@given(st.lists(st.sets(ids, max_size=8), max_size=6), st.floats(0.05, 0.5))
def test_a_side_is_kept_for_good(rounds: list[set[SliceId]], fraction: float) -> None:
    sides: dict[SliceId, str] = {}
    corrected: set[SliceId] = set()
    for more in rounds:
        corrected |= more
        before = dict(sides)
        sides |= choose_sides(corrected, before, fraction)
        assert set(sides) >= corrected
        assert all(sides[one] == side for one, side in before.items())
        if len(corrected) >= HOLD_OUT_FROM and set(corrected) - set(before):
            assert "held-out" in sides.values()


@given(st.sets(ids, min_size=1), st.randoms())
def test_the_order_of_the_slices_does_not_matter(some: set[SliceId], shuffle: random.Random) -> None:
    shuffled = sorted(some)
    shuffle.shuffle(shuffled)
    assert choose_sides(shuffled) == choose_sides(sorted(some))


@given(st.sets(ids, min_size=HOLD_OUT_FROM), st.floats(0.05, 0.5))
def test_the_share_that_is_held_out(some: set[SliceId], fraction: float) -> None:
    held_out = list(choose_sides(some, None, fraction).values()).count("held-out")
    assert held_out == max(1, int(fraction * len(some)))


def test_few_slices_are_all_learned_from() -> None:
    some = [("anna", z) for z in range(HOLD_OUT_FROM - 1)]
    assert set(choose_sides(some).values()) == {"learned"}
    assert set(choose_sides([("anna", z) for z in range(9)], None, 0).values()) == {"learned"}


def test_the_sides_are_the_same_on_every_machine() -> None:
    sides = choose_sides([("anna", z) for z in range(10)])
    assert sorted(z for (_, z), side in sides.items() if side == "held-out") == EXPECTED


EXPECTED = [3, 9]


def test_slices_are_split_by_their_sides() -> None:
    slices = LabelledSlices(
        np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8),
        np.zeros((3, 1, 4, 4), bool),
        np.array(["anna", "anna", "bert"]),
        ("lesion",),
        numbers=np.array([4, 5, 4]),
    )
    learned, held_out = split(
        slices, {("anna", 4): "learned", ("anna", 5): "held-out", ("bert", 4): "learned"}
    )
    assert LabelledSlices.joined([learned, held_out]).ids == (("anna", 4), ("bert", 4), ("anna", 5))
    assert LabelledSlices.joined([slices.rows(np.arange(0))]) is None
    assert learned.ids == (("anna", 4), ("bert", 4)) and learned.images[:, 0, 0].tolist() == [0, 2]
    assert held_out.ids == (("anna", 5),) and held_out.images[0, 0, 0] == 1


@pytest.mark.parametrize("shape", [(3, 1, 4, 5), (2, 1, 4, 4), (3, 4, 4)])
def test_shapes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    patients = np.array(["anna", "anna", "bert"])
    with pytest.raises(ValueError, match="slices"):
        LabelledSlices(np.zeros((3, 4, 4), np.uint8), np.zeros(shape, bool), patients, ("lesion",))
