"""Each number of the rules on Hounsfield units, from just below it and from just above."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from napari_covseg.labels import lesion
from napari_covseg.predict.hounsfield import drop_gas_and_fat, keep_raised
from napari_covseg.predict.options import RULES

Mask = npt.NDArray[np.uint8]
MM = 1.4  # the grid on which findings are looked at
LESION = lesion("lesion").value


def mixed(*parts: tuple[float, int], rows: int = 40) -> npt.NDArray[np.int16]:
    """A block of 40 columns of (share, HU), in whole blocks of 2 x 2 and in the order given."""
    counts = [round(share * rows * 10) for share, _ in parts]
    values = np.repeat([level for _, level in parts], counts).reshape(-1, rows // 2).T
    return np.asarray(values.repeat(2, 0).repeat(2, 1), np.int16)


@pytest.mark.parametrize(
    ("parts", "stays"),
    [
        ([(0.6, -100), (0.4, -600)], True),  # more than three fifths of fat
        ([(0.605, -100), (0.395, -600)], False),
        ([(0.195, -990), (0.395, -600), (0.41, 40)], True),  # a fifth of gas, two fifths of lung tissue
        ([(0.205, -990), (0.395, -600), (0.4, 40)], False),
        ([(0.205, -990), (0.405, -600), (0.39, 40)], True),
        ([(1.0, -950)], False),  # the last of gas, of lung tissue and of fat
        ([(1.0, -949)], True),
        ([(1.0, -200)], True),
        ([(1.0, -199)], False),
        ([(1.0, -30)], False),
        ([(1.0, -29)], True),
    ],
)
def test_what_is_no_lung(parts: list[tuple[float, int]], stays: bool) -> None:
    lungs, voxels = np.zeros((60, 60), np.uint8), np.full((60, 60), 40, np.int16)
    lungs[10:50, 10:50], voxels[10:50, 10:50] = 3, mixed(*parts)
    assert drop_gas_and_fat(lungs, voxels)[10:50, 10:50].all() == stays


def stays(
    part: npt.NDArray[Any] | int,
    rows: slice = slice(40, 80),
    columns: slice = slice(40, 80),
    *,
    around: int = -870,
    pixel: tuple[float, float] = (MM, MM),
    rule: str = "vessels",
    lungs: Mask | None = None,
) -> bool:
    """Whether a finding with these HU stays, by one rule or by that and "vessels"."""
    voxels = np.full((120, 200) if lungs is not None else (120, 120), around, np.int16)
    voxels[rows, columns] = part
    lesions = np.zeros(voxels.shape, np.uint8)
    lesions[rows, columns] = LESION
    lungs = np.ones(voxels.shape, np.uint8) if lungs is None else lungs
    rules: Any = {rule, "vessels"} if rule == "hilum" else {rule}
    assert rules <= RULES
    kept = keep_raised(lesions, lungs, voxels, pixel, rules=frozenset(rules))
    assert kept.any() == kept[rows, columns].all()
    return bool(kept.any())


@pytest.mark.parametrize(
    ("around", "last"),
    [
        (-870, -769),  # its lungs are at -872 in steps of 4, and 100 more than that are too little
        (-950, -797),  # below -796 in steps of 4 nothing is raised, however dark the lungs are
    ],
)
def test_from_which_density_on_a_finding_is_raised(around: int, last: int) -> None:
    assert not stays(last, around=around)
    assert stays(last + 1, around=around)


def test_where_no_lung_is_left_to_compare_with_it_is_that_of_others() -> None:
    everything: Any = (slice(None), slice(None))
    assert not stays(-757, *everything)  # -860 and 100
    assert stays(-756, *everything)


def columns_of(*widths: tuple[int, int], count: int = 40) -> npt.NDArray[np.int16]:
    """Rows that repeat (width in pixels, HU)."""
    row = np.concatenate([np.full(width, level) for width, level in widths])
    return np.asarray(np.tile(row, 1 + count // len(row))[:count], np.int16)


@pytest.mark.parametrize(
    ("part", "pixel", "expected"),
    [
        (columns_of((22, -600), (18, -900)), (MM, MM), True),  # more than half, or less
        (columns_of((18, -600), (22, -900)), (MM, MM), False),
        (columns_of((4, -600), (3, -900)), (MM, MM), False),  # strips of 5.6 mm and of 8.4 mm
        (columns_of((6, -600), (4, -900)), (MM, MM), True),
        (columns_of((8, -600), (6, -900)), (0.7, 0.7), False),  # the same on a finer grid
        (columns_of((12, -600), (8, -900)), (0.7, 0.7), True),
    ],
)
def test_what_is_wider_than_a_vessel(
    part: npt.NDArray[np.int16], pixel: tuple[float, float], expected: bool
) -> None:
    assert stays(part, pixel=pixel) == expected
    if pixel == (MM, MM):
        assert stays(part[:, None].repeat(40, 1), pixel=pixel) == expected


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (mixed((0.6, -100), (0.4, -600)), True),
        (mixed((0.605, -100), (0.395, -600)), False),
        (-200, True),
        (-199, False),
        (-30, False),
        (-29, True),
    ],
)
def test_what_is_fat(part: npt.NDArray[np.int16] | int, expected: bool) -> None:
    assert stays(part, rule="fat findings") == expected


def two_lungs(shape: tuple[int, int] = (120, 200)) -> Mask:
    lungs = np.zeros(shape, np.uint8)
    lungs[:, :80] = lungs[:, 120:] = 1
    return lungs


@pytest.mark.parametrize(
    ("rows", "columns", "pixel", "expected"),
    [
        (slice(40, 90), slice(60, 66), (MM, MM), False),  # of 588 mm2
        (slice(40, 92), slice(60, 66), (MM, MM), True),  # of 612 mm2
        (slice(20, 110), slice(60, 66), (0.7, MM), False),  # of 529 mm2
        (slice(5, 115), slice(60, 66), (0.7, MM), True),  # of 647 mm2
        (slice(50, 80), slice(10, 16), (MM, MM), True),  # its middle is 17 mm from the ribs
        (slice(50, 80), slice(13, 19), (MM, MM), False),  # 22 mm
        (slice(50, 80), slice(16, 28), (MM, 0.7), True),  # 15 mm
        (slice(50, 80), slice(26, 38), (MM, 0.7), False),  # 22 mm
    ],
)
def test_how_large_and_how_deep_a_vessel_at_the_hilum_is(
    rows: slice, columns: slice, pixel: tuple[float, float], expected: bool
) -> None:
    assert stays(-300, rows, columns, pixel=pixel, rule="hilum", lungs=two_lungs()) == expected


@pytest.mark.parametrize(("block", "stem", "expected"), [(10, 20, True), (9, 36, False)])
def test_how_much_of_a_finding_at_the_hilum_is_wider_than_its_vessels(
    block: int, stem: int, expected: bool
) -> None:
    """A block of 13 to 14 mm with a stem 8 mm wide: the block is two fifths of it, or a quarter."""
    lungs, voxels = two_lungs(), np.full((120, 200), -870, np.int16)
    lesions = np.zeros(lungs.shape, np.uint8)
    lesions[40 : 40 + block, 58 : 58 + block] = lesions[40 : 40 + block + stem, 60:66] = LESION
    voxels[lesions > 0] = -300
    assert keep_raised(lesions, lungs, voxels, (MM, MM)).any() == expected
