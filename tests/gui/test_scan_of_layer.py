from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from napari import Viewer
from napari.layers import Image

from napari_covseg import _reader
from napari_covseg.errors import ScanError
from napari_covseg.panels.dock import CovSegDock
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
    values = volume("float32")
    values[0] = -3024
    found = scan_of_layer(Image(values + 0.3))
    assert found.voxels.dtype == np.int16
    assert found.voxels.min() == -1024
    np.testing.assert_array_equal(found.voxels[1:], np.rint(values[1:] + 0.3))
    assert scan_of_layer(Image(values.astype(np.int16))).voxels.min() == -1024


TURN = np.array([[0.0, 0, 1], [0, -1, 0], [1, 0, 0]])
TRANSFORMS: dict[str, dict[str, Any]] = {
    "as ours": {"scale": (5, 0.7, 0.8)},
    "as in RAS": {"scale": (5, -0.7, -0.8), "translate": (9, 3, 4)},
    "from head to foot": {"scale": (-5, 0.7, 0.8), "translate": (-100, 20, 30)},
    "turned": {"scale": (5, 0.7, 0.8), "rotate": TURN, "translate": (1, 2, 3)},
    "oblique": {"scale": (5, 0.7, 0.8), "rotate": (10, 5, 3), "translate": (1, 2, 3)},
    "an affine": {
        "affine": [[0, 0, 2, 7], [0, -0.5, 0, 8], [1.5, 0, 0, 9], [0, 0, 0, 1]],
        "scale": (2, 1, 1),
    },
    "sheared": {"scale": (5, 0.7, 0.8), "shear": [0.1, 0, 0]},
    "in µm": {"scale": (5000, -700, 800), "translate": (1000, 2000, 3000), "units": ("um",) * 3},
    "in mixed units": {"scale": (0.5, -700, 0.8), "units": ("cm", "um", "mm"), "translate": (1, 2000, 3)},
    "in pixels": {"scale": (5, -0.7, 0.8), "translate": (1, 2, 3), "units": ("pixel",) * 3},
    "one time point": {
        "scale": (1, 5, -0.7, 0.8),
        "translate": (6, 1, 2, 3),
        "units": ("s", "mm", "mm", "mm"),
    },
}


def transformed(name: str) -> tuple[Image, np.ndarray[Any, Any]]:
    """A layer with different values in every voxel, and its world (z, y, x) in mm of each voxel."""
    options = {"units": ("mm",) * 3} | TRANSFORMS[name]
    values = volume()
    layer = Image(values[np.newaxis] if name == "one time point" else values, **options)
    inside = [np.array(np.unravel_index(n, layer.data.shape)) for n in range(values.size)]
    world = np.array([layer.data_to_world(v) for v in inside])[:, -3:]
    factor = {"in µm": [1e-3] * 3, "in mixed units": [10, 1e-3, 1]}.get(name, [1.0] * 3)
    return layer, world * factor


@pytest.mark.parametrize("name", TRANSFORMS)
def test_each_voxel_stays_where_the_layer_has_it(name: str) -> None:
    layer, world = transformed(name)
    found = scan_of_layer(layer)
    for value, place in zip(volume().ravel(), world, strict=True):
        [at] = np.argwhere(found.voxels == value)
        np.testing.assert_allclose((found.affine @ [*at, 1])[2::-1], place, atol=1e-9)
    assert (found.spacing is None) == (name == "in pixels")
    upright = np.abs(found.affine[:3, :3]) == np.abs(found.affine[:3, :3]).max(0)
    assert (np.diag(found.affine[2::-1, :3]) > 0).all()  # up, back, left: the letters are right
    assert upright[[2, 1, 0], [0, 1, 2]].all()


def test_axes_that_are_called_x_y_z_are_taken_so() -> None:
    layer = Image(volume(), scale=(0.8, 0.7, 5), translate=(1, 2, 3), axis_labels=("x", "y", "z"))
    found = scan_of_layer(layer)
    assert found.voxels.shape == (6, 5, 4)
    assert found.affine @ (1, 2, 3, 1) == pytest.approx((1 + 3 * 0.8, 2 + 2 * 0.7, 3 + 5, 1))


@pytest.mark.parametrize(
    ("labels", "signs"),
    [
        (("S", "A", "R"), (1, -1, -1)),
        (("superior", "posterior", "left"), (1, 1, 1)),
        (("i", "a", "l"), (-1, -1, 1)),
    ],
)
def test_axes_that_are_called_by_the_sides_of_the_patient_rise_there(
    labels: Any, signs: tuple[int, ...]
) -> None:
    layer = Image(
        volume(), scale=(5, 0.7, 0.8), translate=(1, 2, 3), axis_labels=tuple(labels), units=("mm",) * 3
    )
    found = scan_of_layer(layer)
    for value in volume().ravel()[::11]:
        [drawn], [at] = np.argwhere(volume() == value), np.argwhere(found.voxels == value)
        expected = np.array(layer.data_to_world(drawn)) * signs
        np.testing.assert_allclose((found.affine @ [*at, 1])[2::-1], expected)


@pytest.mark.parametrize("name", ["as in RAS", "from head to foot", "in µm"])
def test_a_layer_that_became_the_scan_stays_in_its_place(
    workbench: tuple[Viewer, CovSegDock], qtbot: Any, name: str
) -> None:
    viewer, dock = workbench
    layer, world = transformed(name)
    viewer.add_layer(layer)
    dock.workbench.opening.layer(layer)
    qtbot.waitUntil(lambda: dock.session.case is not None and not dock.session.busy_with, timeout=60_000)
    case, layers = dock.session.case, dock.session.layers
    assert case is not None and layers is not None and layers.scan is layer
    for drawn in (layers.scan, *layers.labels.values()):
        for value, place in zip(volume().ravel()[::7], world[::7], strict=True):
            [at] = np.argwhere(case.voxels == value)
            np.testing.assert_allclose(drawn.data_to_world(at), place, atol=1e-9)
    assert dock.workbench.letters.texts() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}


def test_a_layer_of_four_axes_does_not_move_the_slices(
    workbench: tuple[Viewer, CovSegDock], add_scan: Any, scan: Scan, qtbot: Any
) -> None:
    viewer, dock = workbench
    add_scan(viewer, scan)
    qtbot.waitUntil(lambda: dock.session.case is not None and not dock.session.busy_with, timeout=60_000)
    viewer.add_image(np.zeros((5, 12, 96, 96), np.uint8), scale=(1, *(scan.spacing or ())))
    dock.session.go_to(7)
    assert dock.session.slice_on_screen == 7 and viewer.dims.current_step[0] != 7
    viewer.dims.set_current_step(0, 1)
    assert dock.session.slice_on_screen == 7
    assert dock.workbench.letters.texts() == {"top": "A", "bottom": "P", "left": "R", "right": "L"}
    viewer.dims.order = (0, 2, 1, 3)
    assert dock.workbench.letters.texts() == {"top": "H", "bottom": "F", "left": "R", "right": "L"}
    assert dock.session.slice_on_screen == 6  # slices do not lie flat: the middle one
    viewer.dims.order = (2, 3, 0, 1)  # time is drawn
    assert dock.workbench.letters.texts() == {}


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
