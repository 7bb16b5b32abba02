"""The look of a slice from its pixels, on a phantom in known guises."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from skimage import data

from napari_covseg.errors import ScanError
from napari_covseg.scans.appearance import KINDS, Appearance, back, look, rules, upright
from phantom import phantom

SEED = 12  # neither of those that rules are fitted on (1000-9999) nor of those that only test


@pytest.fixture(scope="module")
def chest() -> np.ndarray:
    """Slices of a chest, HU (5, 192, 192)."""
    return phantom(SEED, (5, 192, 192), (35.0, 1.9, 1.9)).scan.voxels


def windowed(hu: np.ndarray, low: float, high: float) -> np.ndarray:
    return ((np.clip(hu, low, high).astype(np.float32) - low) * (255 / (high - low))).astype(np.uint8)


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize("inverted", [False, True])
def test_a_turned_or_inverted_picture_is_recognised_and_made_upright(chest, turns, inverted):
    plain = windowed(chest, -1350, 150)
    picture = np.rot90(255 - plain if inverted else plain, turns, axes=(1, 2))
    found = look(picture, "grey")
    assert (found.kind, found.turned, found.inverted) == ("chest CT", 90 * turns, inverted)
    assert found.contrast == "lung window"
    assert not found.cropped
    np.testing.assert_array_equal(upright(picture, found), plain)


@pytest.mark.parametrize(
    ("low", "high", "contrast"),
    [(-1000, 400, "lung window"), (-160, 240, "mediastinal window"), (-1024, 1500, "whole range")],
)
def test_the_window_is_recognised(chest, low, high, contrast):
    found = look(windowed(chest, low, high), "grey")
    assert found.contrast == contrast
    assert not found.equalised


def test_equalisation_is_recognised(chest):
    clahe = cv2.createCLAHE(5.0, (8, 8))
    found = look(np.stack([clahe.apply(s) for s in windowed(chest, -1024, 1500)]), "grey")
    assert found.equalised
    assert found.kind == "chest CT"


def test_a_crop_to_the_lungs_is_recognised(chest):
    plain = windowed(chest[2], -1350, 150)
    ys, xs = np.nonzero(phantom(SEED, (5, 192, 192), (35.0, 1.9, 1.9)).lungs[2])
    assert look(plain[ys.min() : ys.max(), xs.min() : xs.max()], "grey").cropped
    assert not look(plain, "grey").cropped


def test_a_mirror_image_is_said_or_unknown_but_never_undone(chest):
    plain = windowed(chest, -160, 240)
    found, flipped = look(plain, "grey"), look(plain[:, :, ::-1], "grey")
    assert found.mirrored in (None, False)
    assert flipped.mirrored in (None, True)
    np.testing.assert_array_equal(upright(plain[:, :, ::-1], flipped), plain[:, :, ::-1])


def test_many_slices_are_surer_than_one(chest):
    picture = np.rot90(windowed(chest, -1350, 150), 1, axes=(1, 2))
    alone = [look(page, "grey").confidence["turned"] for page in picture]
    assert look(picture, "grey").confidence["turned"] >= np.median(alone)


def test_hu_keep_the_geometry_of_their_file(chest):
    lying = np.rot90(chest, 1, axes=(1, 2))
    found = look(lying, "HU")
    assert (found.turned, found.inverted, found.contrast) == (0, False, None)
    assert upright(lying, found) is lying
    assert back(lying, found) is lying


def test_a_chest_in_hu_is_one_also_with_neck_and_liver_around(chest):
    water = np.full((3, 192, 192), -1000, np.int16)
    yy, xx = np.mgrid[:192, :192]
    water[:, np.hypot((yy - 96) / 60, (xx - 96) / 80) < 1] = 40
    assert look(np.concatenate([water, chest, water]), "HU").kind == "chest CT"
    assert look(water, "HU").kind != "chest CT"


def test_sixteen_bit_pictures_are_looked_at_too(chest):
    picture = windowed(chest, -1350, 150).astype(np.uint16) * 16
    found = look(255 * 16 - picture, "grey")
    assert (found.inverted, found.bits) == (True, 12)
    assert upright(255 * 16 - picture, found).dtype == np.uint16


def test_a_blank_picture_and_a_mask_are_said():
    assert look(np.full((3, 40, 50), 7, np.uint8), "grey").kind == "blank"
    assert look(np.full((40, 50), -1024, np.int16), "HU").kind == "blank"
    mask = np.zeros((128, 128), np.uint8)
    mask[30:90, 20:50] = mask[30:90, 70:110] = 255
    assert look(mask, "grey").kind == "mask"


def radiograph() -> np.ndarray:
    """Rays from front to back through a chest."""
    hu = phantom(SEED, (64, 96, 96), (5.0, 3.8, 3.8)).scan.voxels
    rays = cv2.resize((hu.astype(np.float32) + 1000).sum(1)[::-1], (256, 256))
    return cv2.normalize(rays, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def resonance(hu: np.ndarray) -> np.ndarray:
    """The greys of magnetic resonance: bone dark, fat bright, light uneven, noise of Rice."""
    greys = [2, 15, 220, 220, 120, 120, 100, 100, 60, 15]
    light = 1 + 0.3 * np.cos(np.mgrid[: hu.shape[1], : hu.shape[2]] / 40).sum(0)
    signal = np.interp(hu, [-1000, -700, -120, -80, 0, 20, 40, 60, 150, 400], greys) * light
    noise = np.random.default_rng(0).normal(0, 6, (2, *hu.shape))
    found = np.hypot(signal + noise[0], noise[1])
    return np.clip([cv2.GaussianBlur(one, (0, 0), 1) for one in found], 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["chest X-ray", "MR", "photograph"])
def test_other_pictures_are_no_chest_ct(chest, kind):
    pictures = {"chest X-ray": radiograph, "MR": lambda: resonance(chest), "photograph": data.brick}
    found = look(pictures[kind](), "grey")
    assert (found.kind, found.marks) == (kind, "none")
    assert found.refusal("This") == f"This: {found.sentences()[0]}"


def knee() -> np.ndarray:
    """Rays through a leg with its bones, which end at the joint."""
    y, x = np.mgrid[:256, :256] / 256
    grey = 90 * np.exp(-(((x - 0.5) / 0.23) ** 4)) + 70 * np.exp(-(((x - 0.5) / 0.075) ** 4))
    for height, thick in ((0.42, 0.09), (0.58, 0.07)):
        grey += 55 * np.exp(-(((x - 0.5) / 0.16) ** 4) - ((y - height) / thick) ** 4)
    grey -= 60 * np.exp(-(((x - 0.5) / 0.17) ** 4) - ((y - 0.505) / 0.012) ** 2)
    return np.clip(grey + np.random.default_rng(0).normal(0, 3, grey.shape), 0, 255).astype(np.uint8)


def test_an_x_ray_without_lungs_is_not_called_one_of_a_chest():
    assert look(knee(), "grey").kind == "X-ray"


@pytest.mark.slow
@pytest.mark.parametrize("turns", range(4))
def test_rules_of_axial_slices_turn_and_invert_no_x_ray(turns):
    picture = np.rot90(radiograph(), turns)
    found = look(picture, "grey")
    assert found.kind in ("chest X-ray", "X-ray")
    assert (found.turned, found.inverted, found.cropped, found.equalised) == (0, False, False, False)
    assert found.overruled(turned=90).turned == 90
    np.testing.assert_array_equal(upright(picture, found), picture)


def test_even_tissue_in_hu_is_no_mask():
    yy, xx = np.mgrid[:96, :96]
    body = np.where(np.hypot((yy - 48) / 40, (xx - 48) / 45) < 1, 40, -1000).astype(np.int16)
    body += np.random.default_rng(0).integers(-8, 9, body.shape, np.int16)
    assert look(body, "HU").kind not in ("mask", "chest CT")
    assert look(np.where(body > 0, 200, 0).astype(np.int16), "HU").kind == "mask"


def test_colour_is_said(chest):
    grey = windowed(chest[2], -1350, 150)
    rgb = np.stack([grey] * 3, -1)
    assert look(rgb, "grey").marks != "colour"
    rgb[20:30, 20:40] = (255, 0, 0)
    assert look(rgb, "grey").marks == "colour"
    assert look(rgb, "grey").kind == "chest CT"
    rgb[..., 0] = 255 - rgb[..., 0]
    assert look(rgb, "grey").kind == "photograph"


@settings(max_examples=60, deadline=None)
@given(
    labels=arrays.arrays(
        np.uint8, st.one_of(arrays.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=9))
    ),
    turned=st.sampled_from([0, 90, 180, 270]),
    inverted=st.booleans(),
)
def test_labels_come_back_to_the_grid_of_the_file(labels, turned, inverted):
    found = Appearance("grey", turned=turned)
    np.testing.assert_array_equal(back(upright(labels, found), found), labels)
    found = found.overruled(inverted=inverted)
    returned = back(upright(labels, found), found)
    np.testing.assert_array_equal(returned, 255 - labels if inverted else labels)
    # the label of a pixel stays at that pixel: a label map made of the upright picture itself
    np.testing.assert_array_equal(back(upright(labels, found) > 100, found), returned > 100)


def test_it_is_kept_as_json(chest):
    found = look(windowed(chest, -1350, 150), "grey")
    assert Appearance.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert Appearance.from_json({"intensity": "grey", "of a newer version": 1}) == Appearance("grey")


def test_what_a_person_says_replaces_what_was_seen(chest):
    found = look(windowed(chest, -1350, 150), "grey")
    overruled = found.overruled(turned=270, mirrored=None)
    assert (overruled.turned, overruled.mirrored, overruled.confidence["turned"]) == (270, None, 1.0)
    assert overruled.contrast == found.contrast
    assert found.turned == 0
    with pytest.raises(ScanError, match="turned cannot be 45; choose of 0, 90, 180, 270"):
        found.overruled(turned=45)
    with pytest.raises(ScanError, match="inverted cannot be 1"):
        found.overruled(inverted=1)
    with pytest.raises(ScanError, match="nothing called colour"):
        found.overruled(colour="red")
    with pytest.raises(ScanError, match="HU"):
        Appearance("HU").overruled(turned=90)
    assert Appearance("HU").overruled(kind="abdomen CT").kind == "abdomen CT"


def test_each_sentence_says_one_thing(chest):
    found = look(np.rot90(255 - windowed(chest, -1350, 150), 1, axes=(1, 2)), "grey")
    text = " ".join(found.sentences())
    assert all(sentence.endswith(".") for sentence in found.sentences())
    assert "chest CT" in text and "90°" in text and "inverted" in text
    for kind in KINDS[1:]:
        assert len(Appearance("grey", kind).sentences()) == 1


def test_the_rules_are_for_upright_chests():
    """What is symmetric stays so: a rule for the turn must not look at the side of the heart."""
    rule = rules()
    np.testing.assert_allclose(rule.upright, rule.upright[..., ::-1])
    np.testing.assert_allclose(rule.mirrored, -rule.mirrored[..., ::-1])


def test_no_pixels_are_an_error():
    with pytest.raises(ValueError, match="shape"):
        look(np.zeros((0, 4, 4), np.uint8), "grey")
