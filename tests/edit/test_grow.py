"""Growing finds the lesion under a click and stays out of vessels, walls and neighbours."""

from __future__ import annotations

import numpy as np
import pytest

from napari_covseg.edit.edit import Edit
from napari_covseg.edit.grow import grow
from napari_covseg.edit.hu_range import PRESETS
from napari_covseg.errors import EditError

GGO = PRESETS["ground-glass"]
SPACING = (2.0, 0.7, 0.7)
SHAPE = (12, 100, 120)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * np.sum(one & other) / (one.sum() + other.sum()))


def ball(centre: tuple[float, float, float], radius: float) -> np.ndarray:
    squares = sum(((g - c) * s) ** 2 for g, c, s in zip(np.indices(SHAPE), centre, SPACING, strict=True))
    return np.asarray(squares <= radius**2)


@pytest.fixture(scope="module")
def scan() -> tuple[np.ndarray, np.ndarray]:
    """Lung with noise; a lesion, a second one that a vessel connects with it, the chest wall on the right."""
    lesion = ball((5, 50, 35), 9.0)
    second = ball((5, 50, 75), 7.0)
    voxels = np.full(SHAPE, -870.0)
    voxels[:, 50:52, 35:75] = -650  # a vessel two pixels wide, with the HU of ground-glass
    voxels[lesion | second] = -640
    voxels[:, :, 100:] = 40
    voxels[:, :, 98:100] = -600  # partial volume at the pleura
    noise = np.random.default_rng(0).normal(0, 40, SHAPE)
    return (voxels + noise).astype(np.int16), lesion


def grown(edit: Edit) -> np.ndarray:
    mask = np.zeros(SHAPE, np.uint8)
    mask[edit.index] = edit.after
    return mask > 0


def test_on_a_slice_the_lesion_is_found_and_neither_vessel_nor_second_lesion(
    scan: tuple[np.ndarray, np.ndarray],
) -> None:
    voxels, lesion = scan
    edit = grow(np.zeros(SHAPE, np.uint8), voxels, (5, 50, 33), 2, GGO, SPACING)
    got = grown(edit)
    assert edit.slices == [5] and edit.tool == "grow" and set(edit.after.tolist()) == {2}
    assert dice(got[5], lesion[5]) > 0.95
    assert not got[5, :, 60:].any()
    leaking = grown(grow(np.zeros(SHAPE, np.uint8), voxels, (5, 50, 33), 2, GGO, SPACING, opening_mm=0))
    assert leaking[5, 50, 75]  # without the opening it goes through the vessel


def test_in_the_volume(scan: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, lesion = scan
    got = grown(grow(np.zeros(SHAPE, np.uint8), voxels, (5, 50, 35), 2, GGO, SPACING, three_d=True))
    assert dice(got, lesion) > 0.95


def test_lungs_and_largest_radius_bound_it(scan: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, _ = scan
    lungs = np.zeros(SHAPE, np.uint8)
    lungs[:, :45] = 1
    labels = np.zeros(SHAPE, np.uint8)
    got = grown(grow(labels, voxels, (5, 42, 35), 2, GGO, SPACING, lungs=lungs))
    assert got.any() and not got[:, 45:].any()
    near = grown(grow(labels, voxels, (5, 50, 35), 2, GGO, SPACING, max_radius_mm=4.0))
    yy, xx = np.indices(SHAPE[1:])
    reach = ((yy - 50) ** 2 + (xx - 35) ** 2) * 0.49 <= 16
    assert dice(near[5], reach) > 0.95 and not (near[5] & ~reach).any()


def test_other_labels_bound_it(scan: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, _ = scan
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, 36:] = 3
    edit = grow(labels, voxels, (5, 50, 30), 2, GGO, SPACING)
    assert edit.index[2].max() == 35 and set(edit.before.tolist()) == {0}
    over = grow(labels, voxels, (5, 50, 30), 2, GGO, SPACING, over=(0, 3))
    assert over.index[2].max() > 36 and set(over.before.tolist()) == {0, 3}


def test_a_lesion_that_is_there_already_is_gone_on_with(scan: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, lesion = scan
    labels = np.where(lesion & (np.indices(SHAPE)[2] < 35), 2, 0).astype(np.uint8)
    edit = grow(labels, voxels, (5, 50, 33), 2, GGO, SPACING)
    labels[edit.index] = edit.after
    assert dice(labels[5] == 2, lesion[5]) > 0.95


def test_a_click_on_a_thin_structure_stays_there(scan: tuple[np.ndarray, np.ndarray]) -> None:
    voxels, _ = scan
    edit = grow(np.zeros(SHAPE, np.uint8), voxels, (5, 20, 98), 2, GGO, SPACING)
    assert 0 < len(edit) < 20 and np.ptp(edit.index[1]) <= 8


def test_progress_can_stop_it(scan: tuple[np.ndarray, np.ndarray]) -> None:
    def stop(done: int, total: int) -> None:
        if done:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        grow(np.zeros(SHAPE, np.uint8), scan[0], (5, 50, 35), 2, GGO, SPACING, three_d=True, progress=stop)


@pytest.mark.parametrize(
    ("point", "message"),
    [
        ((5, 50, 120), "outside the scan"),
        ((5, 5, 5), "outside −800 to −500 HU"),
        ((5, 50, 110), "outside −800 to −500 HU"),
        ((5, 50, 75), "on another label"),
        ((5, 50, 45), "outside the lungs"),
    ],
)
def test_refusals(scan: tuple[np.ndarray, np.ndarray], point: tuple[int, int, int], message: str) -> None:
    labels = np.zeros(SHAPE, np.uint8)
    labels[:, :, 70:80] = 3
    lungs = np.ones(SHAPE, np.uint8)
    lungs[:, :, 40:50] = 0
    with pytest.raises(EditError, match=message):
        grow(labels, scan[0], point, 2, GGO, SPACING, lungs=lungs)
