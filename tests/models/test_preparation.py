"""A slice is clipped, resized, scaled and equalised in exactly this order."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_covseg.errors import ModelError
from napari_covseg.models.preparation import LUNG_WINDOW, Preparation, reorient, reorient_back
from napari_covseg.scans.appearance import Appearance

Floats = npt.NDArray[np.float64]


def chest(shape: tuple[int, int] = (512, 512), seed: int = 0) -> npt.NDArray[np.int16]:
    """Air, a body, two lungs with vessels, a bone: enough texture for CLAHE to matter."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    voxels = np.full(shape, -1000.0)
    voxels[x**2 / 0.8 + y**2 / 0.5 < 1] = 40
    for side in (-0.42, 0.42):
        voxels[(x - side) ** 2 / 0.08 + y**2 / 0.25 < 1] = -850
    voxels[(x**2 + (y - 0.55) ** 2) < 0.01] = 700
    return (voxels + rng.normal(0, 25, shape)).astype(np.int16)


def cubic(values: Floats, size: int) -> Floats:
    """Resize both axes by Keys' kernel (a = -0.75), pixel centres at half, edges repeated."""

    def weight(distance: Floats) -> Floats:
        d, a = np.abs(distance), -0.75
        near = (a + 2) * d**3 - (a + 3) * d**2 + 1
        far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
        return np.where(d <= 1, near, np.where(d < 2, far, 0))

    def matrix(count: int) -> Floats:
        centre = (np.arange(size) + 0.5) * count / size - 0.5
        rows = np.zeros((size, count))
        for shift in range(-1, 3):
            tap = np.floor(centre) + shift
            np.add.at(rows, (np.arange(size), tap.clip(0, count - 1).astype(int)), weight(centre - tap))
        return rows

    return matrix(values.shape[0]) @ values @ matrix(values.shape[1]).T


def scaled(values: Floats) -> npt.NDArray[np.uint8]:
    return ((values - values.min()) / np.ptp(values) * 255).astype(np.uint8)


def equalised(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.asarray(cv2.createCLAHE(clipLimit=7.0, tileGridSize=(8, 8)).apply(picture))


def far_off(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> float:
    return float(np.abs(a.astype(int) - b.astype(int)).mean())


def test_clip_resize_scale_equalise() -> None:
    voxels = chest()
    voxels[:20, :20] = -2000
    voxels[250:254, 250:254] = 9000
    expected = equalised(scaled(cubic(voxels.clip(-1024, 1500).astype(float), 256)))
    assert far_off(Preparation()(voxels), expected) < 0.05  # a rounding here and there


def test_any_other_order_is_seen() -> None:
    """The reference above is sharp enough to tell the orders apart."""
    voxels = chest()
    voxels[250:254, 250:254] = 3000
    clipped = voxels.clip(-1024, 1500).astype(float)
    others = {
        "no clip": equalised(scaled(cubic(voxels.astype(float), 256))),
        "clip after resize": equalised(scaled(cubic(voxels.astype(float), 256).clip(-1024, 1500))),
        "equalise before resize": scaled(cubic(equalised(scaled(clipped)).astype(float), 256)),
        "not equalised": scaled(cubic(clipped, 256)),
        "the same scale for every slice": equalised(
            ((cubic(clipped, 256).clip(-1024, 1500) + 1024) / 2524 * 255).astype(np.uint8)
        ),
    }
    for order, picture in others.items():
        assert far_off(Preparation()(voxels), picture) > 0.1, order


def test_padding_and_metal_count_no_more_than_the_clip() -> None:
    plain, wild = chest(), chest()
    plain[:30], plain[200:210, 200:210] = -1024, 1500
    wild[:30], wild[200:210, 200:210] = -2000, 30000
    np.testing.assert_array_equal(Preparation()(wild), Preparation()(plain))


def test_pictures_that_are_equalised_are_only_scaled() -> None:
    picture = chest((256, 256)).clip(0, 255)
    picture[0, :2] = 0, 255
    np.testing.assert_array_equal(Preparation()(picture, "grey", equalised=True), picture)
    np.testing.assert_array_equal(
        Preparation()(picture // 2 + 7, "grey", equalised=True), scaled((picture // 2).astype(float))
    )


def test_other_pictures_are_equalised_as_slices_in_hu_are() -> None:
    picture = chest((256, 256)).clip(0, 255)
    picture[0, :2] = 0, 255
    clahe = cv2.createCLAHE(7.0, (8, 8)).apply(picture.astype(np.uint8))
    np.testing.assert_array_equal(Preparation()(picture, "grey"), clahe)
    np.testing.assert_array_equal(Preparation(clahe_clip=0)(picture, "grey"), picture)


def test_pictures_are_not_clipped_to_hu() -> None:
    picture = np.zeros((256, 256), np.int16)
    picture[:, 100:], picture[:, 200:] = 2000, 4000
    assert np.unique(Preparation()(picture, "grey", equalised=True)).tolist() == [0, 127, 255]


@pytest.mark.parametrize("shape", [(100, 64), (64, 100), (512, 300)])
def test_a_slice_that_is_not_square_is_padded_below_and_to_the_right(shape: tuple[int, int]) -> None:
    voxels = chest(shape)
    square = np.full((max(shape), max(shape)), voxels.clip(-1024).min(), np.int16)
    square[: shape[0], : shape[1]] = voxels
    np.testing.assert_array_equal(Preparation()(voxels), Preparation()(square))


def test_settings_reach_the_picture() -> None:
    voxels = chest((64, 64))
    plain = Preparation(size=64, clahe_clip=0)(voxels)
    np.testing.assert_array_equal(plain, scaled(voxels.clip(-1024, 1500).astype(float)))
    assert far_off(Preparation(size=64, clahe_tiles=2)(voxels), Preparation(size=64)(voxels)) > 1
    assert far_off(Preparation(size=64, clahe_clip=0, clip_hu=(-1000.0, 0.0))(voxels), plain) > 1


def test_a_window_is_the_same_for_every_slice() -> None:
    window = Preparation(size=64, clip_hu=LUNG_WINDOW, clahe_clip=0, scaling="window")
    voxels = np.full((64, 64), -300, np.int16)
    assert np.unique(window(voxels)).tolist() == [127]  # half of the way from -1000 to 400 HU
    voxels[0, :3] = -3000, 400, 3000
    assert window(voxels)[0, :4].tolist() == [0, 255, 255, 127]
    edge = np.where(np.arange(200) < 90, -1000, 400).astype(np.int16)[None].repeat(200, 0)
    assert {0, 255} <= set(window(edge)[32].tolist())  # what overshoots is not wrapped around
    assert (np.diff(window(edge)[32].astype(int)) >= 0).all()


@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.sampled_from(["HU", "grey"]),
    st.sampled_from([16, 64]),
    st.integers(0, 5),
)
def test_any_shape_gives_a_square_picture(
    shape: tuple[int, int], intensity: str, size: int, seed: int
) -> None:
    voxels = np.random.default_rng(seed).integers(-3024, 32767, shape, np.int16)
    before = voxels.copy()
    picture = Preparation(size=size)(voxels, intensity)  # type: ignore[arg-type]
    assert picture.shape == (size, size)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(voxels, before)  # the scan itself stays as it is


@given(st.integers(-3024, 32767), st.integers(20, 150), st.sampled_from(["HU", "grey"]))
def test_an_even_slice_stays_even(value: int, side: int, intensity: str) -> None:
    picture = Preparation(size=32)(np.full((side, side), value, np.int16), intensity)  # type: ignore[arg-type]
    assert len(np.unique(picture)) == 1


def test_card_round_trip() -> None:
    preparation = Preparation(128, (-900.0, 200.0), 3.0, 4)
    assert Preparation.from_card(preparation.to_card()) == preparation
    as_json = {**preparation.to_card(), "clip_hu": [-900.0, 200.0]}
    assert Preparation.from_card(as_json) == preparation
    assert Preparation.from_card({}) == Preparation()
    ours = {"size": 256, "clip_hu": [-1024.0, 1500.0], "clahe_clip": 7.0, "clahe_tiles": 8}  # of older cards
    assert Preparation.from_card(ours) == Preparation()


@pytest.mark.parametrize(
    "values", [{"gamma": 2.0}, {"crop": "heart"}, {"scaling": "z-score"}, {"clip_hu": 3}]
)
def test_a_setting_of_a_newer_version_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ModelError, match="Update napari-covseg"):
        Preparation.from_card(values)


def test_a_cropped_picture_gets_a_margin_that_is_neither_air_nor_bone() -> None:
    rng = np.random.default_rng(3)
    picture = rng.integers(0, 256, (40, 60)).astype(np.int16)
    seen = Appearance("grey", cropped=True, turned=90)
    shown = reorient(picture, seen)
    assert shown.shape == (60 + 18, 40 + 18)  # 15 % of the longer side all around
    assert shown.dtype == picture.dtype
    assert set(shown[:9].ravel()) == {int(picture.mean())} == set(shown[:, -9:].ravel())
    np.testing.assert_array_equal(reorient_back(shown, seen), picture)
    labels = reorient((picture > 200).astype(np.uint8), seen, around=0)
    assert not labels[:9].any() and labels.sum() == (picture > 200).sum()
    hu = Appearance("HU", cropped=True)
    np.testing.assert_array_equal(reorient(picture, hu), picture)


def test_bicubic_weights_do_not_wrap_around_the_window() -> None:
    voxels = np.full((160, 160), -1000, np.int16)
    voxels[:, 80:] = 400  # an edge that they overshoot on both sides
    shown = Preparation(size=100, clip_hu=LUNG_WINDOW, scaling="window", clahe_clip=0)(voxels)
    assert (np.diff(shown.astype(int), axis=1) >= 0).all()
    assert shown[0, 0] == 0 and shown[0, -1] == 255
