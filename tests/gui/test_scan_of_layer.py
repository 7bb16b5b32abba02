from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Image

from napari_covseg import _reader
from napari_covseg.errors import ScanError
from napari_covseg.panels.layers import geometry
from napari_covseg.panels.scan.scan_of_layer import scan_of_layer
from napari_covseg.scans.scan import Scan


def volume(dtype: str = "int16") -> np.ndarray:
    return np.linspace(-1000, 600, 4 * 5 * 6).reshape(4, 5, 6).astype(dtype)


def test_a_layer_of_the_reader_keeps_its_header(scan: Scan) -> None:
    data, attributes, _ = _reader.image_layer(scan)
    found = scan_of_layer(Image(data, **attributes))
    assert found.header() == scan.header()
    assert found.voxels is scan.voxels


def test_any_volume_becomes_a_scan() -> None:
    layer = Image(volume(), name="other", scale=(5, 0.7, 0.8), units=("mm",) * 3, translate=(10, 20, 30))
    found = scan_of_layer(layer)
    assert found.spacing == pytest.approx((5, 0.7, 0.8))
    assert found.intensity == "HU"
    assert found.affine @ (1, 2, 3, 1) == pytest.approx((30 + 3 * 0.8, 20 + 2 * 0.7, 10 + 5, 1))
    assert found.source_affine @ (3, 2, 1, 1) == pytest.approx(found.affine @ (1, 2, 3, 1))
    assert found.source_shape == found.voxels.shape == (4, 5, 6)
    assert any("as they were drawn" in note for note in found.notes)


def test_other_lengths_are_turned_into_mm() -> None:
    layer = Image(volume(), scale=(5000, 700, 700), units=("um",) * 3)
    assert scan_of_layer(layer).spacing == pytest.approx((5, 0.7, 0.7))


@pytest.mark.parametrize("units", ["pixel", "second"])
def test_without_a_length_nothing_is_measured(units: str) -> None:
    found = scan_of_layer(Image(volume(), units=(units,) * 3))
    assert found.spacing is None
    assert any("no size in mm" in note for note in found.notes)


def test_a_picture_is_one_grey_slice() -> None:
    found = scan_of_layer(Image(np.linspace(0, 1, 30).reshape(5, 6)))
    assert found.voxels.shape == (1, 5, 6)
    assert found.intensity == "grey" and found.spacing is None
    assert found.voxels.max() == 255


def test_values_are_rounded_and_kept_in_range() -> None:
    found = scan_of_layer(Image(volume("float32") * 100))
    assert found.voxels.dtype == np.int16
    assert found.voxels.min() == -32768


@pytest.mark.parametrize(
    ("data", "rgb", "sentence"),
    [
        (np.zeros((4, 5, 3), np.uint8), True, "in colour"),
        (np.zeros((2, 3, 4, 5)), False, "4 axes"),
        (np.full((3, 4, 5), np.nan), False, "not numbers"),
    ],
)
def test_what_is_no_scan_is_refused(data: np.ndarray, rgb: bool, sentence: str) -> None:
    layer = Image(data, rgb=rgb, name="thing", contrast_limits=None if rgb else (0, 1))
    with pytest.raises(ScanError, match=f'"thing".*{sentence}'):
        scan_of_layer(layer)


def test_pictures_are_drawn_in_pixels() -> None:
    assert geometry(None)["units"] == ("pixel",) * 3
