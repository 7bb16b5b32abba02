from __future__ import annotations

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from phantom import Phantom, phantom

SMALL = {"shape": (40, 96, 96), "spacing": (8.0, 3.75, 3.75)}
ILL_SEED = 4  # has ground-glass, consolidation and effusion


@pytest.fixture(scope="module")
def ill() -> Phantom:
    return phantom(ILL_SEED, **SMALL)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return phantom(ILL_SEED, **SMALL, lesions=False)


def millilitres(mask: np.ndarray, made: Phantom) -> float:
    assert made.scan.spacing is not None
    return float(np.count_nonzero(mask) * np.prod(made.scan.spacing) / 1000)


def test_the_same_seed_gives_the_same_voxels(ill: Phantom) -> None:
    again = phantom(ILL_SEED, **SMALL)
    assert np.array_equal(ill.scan.voxels, again.scan.voxels)
    assert np.array_equal(ill.lungs, again.lungs)
    assert np.array_equal(ill.lesions, again.lesions)


def test_another_seed_is_another_patient(ill: Phantom) -> None:
    other = phantom(ILL_SEED + 1, **SMALL)
    assert (other.lungs != ill.lungs).mean() > 0.005
    assert not np.array_equal(other.scan.voxels, ill.scan.voxels)


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch, ill: Phantom) -> None:
    monkeypatch.setattr("phantom._SLAB_VOXELS", 7 * 96 * 96)
    slabs = phantom(ILL_SEED, **SMALL)
    assert np.abs(slabs.scan.voxels.astype(int) - ill.scan.voxels).max() <= 1
    assert np.array_equal(slabs.lesions, ill.lesions)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_lungs_have_the_volume_of_an_adult(seed: int) -> None:
    made = phantom(seed, shape=(40, 128, 128), spacing=(8.0, 2.8, 2.8))
    right, left = millilitres(made.lungs == 1, made), millilitres(made.lungs == 2, made)
    assert 3000 < right + left < 6000
    assert 0.75 < left / right < 1.15


def test_right_and_left_are_one_piece_each_on_their_own_side(healthy: Phantom) -> None:
    for label, low, high in ((1, 0, 0.5), (2, 0.5, 1)):
        mask = healthy.lungs == label
        pieces, _ = ndimage.label(mask)
        assert np.bincount(pieces[mask]).max() > 0.98 * mask.sum()
        centre = np.nonzero(mask)[2].mean() / mask.shape[2]
        assert low < centre < high


def test_the_head_is_up_and_the_back_is_down(healthy: Phantom) -> None:
    area = (healthy.lungs > 0).sum((1, 2))
    inside = np.flatnonzero(area)
    assert area[inside[-4:]].max() < area.max() / 2  # the apices are narrow
    bone = healthy.scan.voxels > 350
    middle = slice(36, 60)  # the spine is the bone in the middle, behind the lungs' centre
    y = np.nonzero(bone[15:25, :, middle])[1]
    assert np.median(y) > np.nonzero(healthy.lungs)[1].mean()


def test_tissues_have_their_hu(healthy: Phantom) -> None:
    voxels = healthy.scan.voxels
    lung = ndimage.binary_erosion(healthy.lungs > 0, np.ones((1, 5, 5)))
    assert -910 < np.median(voxels[lung]) < -780
    assert -1024 <= voxels.min() < -950
    assert 400 < voxels.max() <= 3071
    assert voxels.dtype == np.int16
    body = voxels > -300
    assert 0.05 < np.mean((voxels[body] > -130) & (voxels[body] < -70)) < 0.6  # fat
    assert np.mean((voxels[body] > 10) & (voxels[body] < 90)) > 0.2  # muscle, liver


def test_lesions_lie_where_they_belong(ill: Phantom) -> None:
    glass, dense, fluid = (ill.lesions == v for v in (2, 3, 4))
    assert set(np.unique(ill.lesions)) == {0, 2, 3, 4}
    assert np.all(ill.lungs[glass | dense] > 0)
    assert np.all(ill.lungs[fluid] == 0)
    assert 0.005 < (glass | dense).sum() / (ill.lungs > 0).sum() < 0.6
    voxels = ill.scan.voxels
    assert -760 < np.median(voxels[glass]) < -450
    assert np.median(voxels[dense]) > np.median(voxels[glass]) + 200
    inner = ndimage.binary_erosion(fluid, np.ones((1, 2, 2)))
    assert -15 < np.median(voxels[inner]) < 35
    assert np.nonzero(fluid)[1].mean() > np.nonzero(ill.lungs)[1].mean()  # fluid sinks to the back


def test_without_lesions_the_same_patient_is_healthy(ill: Phantom, healthy: Phantom) -> None:
    assert not healthy.lesions.any()
    dry = ill.lesions == 0
    assert np.array_equal((ill.lungs > 0)[dry], (healthy.lungs > 0)[dry])
    far = ~ndimage.binary_dilation(ill.lesions > 0, np.ones((5, 11, 11)))
    assert np.abs(ill.scan.voxels.astype(int) - healthy.scan.voxels)[far].mean() < 3


def test_another_spacing_shows_the_same_patient(healthy: Phantom) -> None:
    # 2 x 3.75 mm: every second voxel of the fine grid has no exact twin, so compare volumes and centres
    coarse = phantom(ILL_SEED, shape=(20, 48, 48), spacing=(16.0, 7.5, 7.5), lesions=False)
    one, two = millilitres(healthy.lungs > 0, healthy), millilitres(coarse.lungs > 0, coarse)
    assert abs(one / two - 1) < 0.06


def test_the_scan_knows_its_geometry(ill: Phantom) -> None:
    scan = ill.scan
    assert scan.intensity == "HU"
    assert scan.spacing == (8.0, 3.75, 3.75)
    assert scan.source_shape == scan.voxels.shape
    corner = np.array([3.0, 5.0, 7.0, 1.0])
    assert np.allclose(scan.affine @ corner, scan.source_affine @ corner[[2, 1, 0, 3]])
    step = scan.affine @ np.array([1.0, 0, 0, 0])
    assert np.allclose(step, [0, 0, 8.0, 0])


@settings(max_examples=8, phases=[Phase.explicit, Phase.reuse, Phase.generate])  # shrinking takes minutes
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(1, 12), st.integers(1, 40), st.integers(1, 40)),
    spacing=st.tuples(st.floats(0.5, 40), st.floats(0.4, 20), st.floats(0.4, 20)),
    lesions=st.booleans(),
)
def test_any_size_and_spacing(seed: int, shape: tuple, spacing: tuple, lesions: bool) -> None:
    made = phantom(seed, shape, spacing, lesions)
    assert made.scan.voxels.shape == made.lungs.shape == made.lesions.shape == shape
    assert made.scan.spacing == spacing
    assert made.scan.voxels.min() >= -1024
    assert made.scan.voxels.max() <= 3071
    assert set(np.unique(made.lungs)) <= {0, 1, 2}
    assert set(np.unique(made.lesions)) <= ({0, 2, 3, 4} if lesions else {0})


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((0, 8, 8), (1.0, 1, 1)),
        ((8, 8), (1.0, 1)),
        ((8, 8, 8), (0.0, 1, 1)),
        ((8, 8, 8), (1.0, float("nan"), 1)),
    ],
)
def test_impossible_grids_are_refused(shape: tuple, spacing: tuple) -> None:
    with pytest.raises(ValueError, match="three positive sizes"):
        phantom(0, shape, spacing)
