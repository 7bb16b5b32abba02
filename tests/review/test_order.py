"""The slice that comes next, by features made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.review.order import (
    STRATEGIES,
    SliceFeatures,
    Strategy,
    next_slice,
    slice_entropy,
    slice_features,
)


def made(count: int, peaks: dict[int, float] | None = None, hidden: tuple[int, ...] = ()) -> SliceFeatures:
    """Entropy and disagreement of 1, but for the peaks."""
    values = np.ones(count)
    for z, value in (peaks or {}).items():
        values[z] = value
    shown = np.ones(count, bool)
    shown[list(hidden)] = False
    return SliceFeatures(values, values.copy(), shown)


def order(strategy: Strategy, features: SliceFeatures, number: int, done: tuple[int, ...] = ()) -> list[int]:
    corrected = set(done)
    taken = []
    for _ in range(number):
        taken.append(next_slice(strategy, features, corrected))
        corrected.add(taken[-1])
    return taken


@given(
    st.sampled_from(STRATEGIES),
    st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6), st.booleans()), min_size=1, max_size=25),
    st.sets(st.integers(0, 24)),
)
def test_every_slice_comes_once_and_then_it_ends(
    strategy: Strategy, rows: list[tuple[float, float, bool]], done: set[int]
) -> None:
    entropy, disagreement, shown = (np.array(column) for column in zip(*rows, strict=True))
    features = SliceFeatures(entropy, disagreement, shown.astype(bool))
    corrected = {z for z in done if z < len(rows)}
    left = set(range(len(rows))) - corrected
    taken = order(strategy, features, len(left), tuple(corrected))
    assert set(taken) == left and len(taken) == len(left)
    with pytest.raises(ValueError, match="every slice"):
        next_slice(strategy, features, range(len(rows)))
    # slices that show nothing come last
    ranks = [bool(features.shown[z]) for z in taken]
    assert ranks == sorted(ranks, reverse=True)


def test_positions_are_evenly_spaced_and_then_fill_the_gaps() -> None:
    assert order("position", made(100), 5) == [10, 30, 50, 70, 90]
    assert set(order("position", made(100), 9)[5:]) == {20, 40, 60, 80}


def test_positions_leave_out_what_shows_no_lung() -> None:
    features = made(100, hidden=(*range(40), *range(90, 100)))
    assert order("position", features, 5) == [45, 55, 65, 75, 85]


def test_positions_pass_over_what_a_person_chose_already() -> None:
    assert order("position", made(100), 4, done=(32,)) == [10, 50, 70, 90]


@pytest.mark.parametrize("strategy", ["uncertainty", "disagreement"])
def test_peaks_first_but_no_two_side_by_side(strategy: Strategy) -> None:
    features = made(100, {40: 9, 41: 8, 80: 7})
    assert order(strategy, features, 2) == [40, 80]


def test_each_strategy_looks_at_its_own_feature() -> None:
    features = SliceFeatures(np.array([1.0, 5, 1, 1]), np.array([1.0, 1, 1, 5]), np.ones(4, bool))
    assert next_slice("uncertainty", features, ()) == 1
    assert next_slice("disagreement", features, ()) == 3
    assert next_slice("gain", features, ()) == 1


def test_gain_weighs_entropy_against_distance() -> None:
    high = made(100, dict.fromkeys(range(60, 100), 3.0))
    first, second = order("gain", high, 2)
    assert 60 <= first < 100
    assert abs(second - first) > 10  # uncertain too, but near what was corrected
    quiet = made(100, dict.fromkeys(range(100), 0.0))
    spread = sorted(order("gain", quiet, 4))
    assert min(np.diff(spread)) >= 10


def test_features_of_a_small_scan() -> None:
    lesions = np.zeros((3, 4, 4), np.uint8)
    lesions[1, 0, 0] = 255
    lesions[2, 0, :2] = 128
    lungs = np.zeros((3, 4, 4), np.uint8)
    lungs[2] = 3
    features = slice_features(lesions, lungs)
    assert features.entropy[:2].tolist() == [0, 0]
    assert features.entropy[2] == pytest.approx(2, abs=1e-3)
    # middle: 191/255 of its own pixel is not in the mean of its neighbours, 64/255 of the next one is
    assert features.disagreement.tolist() == pytest.approx([1, (191 + 64) / 255, (127 + 128) / 255])
    assert features.shown.tolist() == [False, True, True]
    assert slice_features(lesions).shown.all()
    assert slice_entropy(lesions[0]) == 0


def test_features_must_be_of_the_same_slices() -> None:
    with pytest.raises(ValueError, match="different numbers"):
        SliceFeatures(np.zeros(2), np.zeros(3), np.zeros(2, bool))
    with pytest.raises(ValueError, match="no strategy"):
        next_slice("best", made(3), ())  # type: ignore[arg-type]
