"""napari's writer is a thin shell over write_labels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from napari.components import ViewerModel
from napari.layers import Labels, Layer

from napari_covseg._reader import read_layers
from napari_covseg._writer import write_labels_layer
from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan
from napari_covseg.scans.scan import METADATA_KEY


def test_labels_with_their_scan_lie_on_its_file(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5), dtype=np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetDirection((0, 1, 0, -1, 0, 0, 0, 0, -1))
    sitk.WriteImage(image, str(tmp_path / "s.nrrd"))
    scan = read_scan(tmp_path / "s.nrrd")
    target = str(tmp_path / "l.nii.gz")
    labels = (scan.voxels > 0).astype(np.int64)
    assert write_labels_layer(target, labels, {"metadata": {METADATA_KEY: scan}}) == [target]
    written = sitk.ReadImage(target)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) > 0)
    assert written.GetDirection() == pytest.approx(image.GetDirection())


def test_labels_without_a_scan_keep_their_scale(tmp_path):
    labels = np.arange(60).reshape(3, 4, 5)
    write_labels_layer(str(tmp_path / "l.mha"), labels, {"scale": [2.0, 0.5, 0.25], "name": "mine"})
    written = sitk.ReadImage(str(tmp_path / "l.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), labels)
    assert written.GetSpacing() == (0.25, 0.5, 2.0)


TURN = [[0, 1, 0], [1, 0, 0], [0, 0, -1]]


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"scale": (2, 0.5, 0.25), "translate": (10, 20, 30), "units": ("mm",) * 3}, 1),
        ({"scale": (2, -0.5, -0.25), "translate": (10, 20, 30)}, 1),
        ({"scale": (2000, 500, 250), "translate": (10, 20, 30), "units": ("um",) * 3}, 1e-3),
        ({"scale": (2, 0.5, 0.25), "rotate": TURN, "affine": np.diag([2, 1, 3, 1])}, 1),
        ({"scale": (2, 0.5, 0.25), "rotate": (10, 20, 30), "translate": (1, 2, 3)}, 1),
    ],
)
@pytest.mark.parametrize("ending", [".nrrd", ".nii.gz"])
def test_any_labels_layer_is_written_where_it_lies(tmp_path, options, factor, ending):
    layer = Labels(np.arange(60).reshape(3, 4, 5), **options)
    data, attributes, _ = layer.as_layer_data_tuple()
    write_labels_layer(str(tmp_path / f"l{ending}"), data, attributes)
    written = sitk.ReadImage(str(tmp_path / f"l{ending}"))
    for value in range(60):
        at = np.argwhere(sitk.GetArrayFromImage(written) == value)[0].tolist()
        place = np.array(written.TransformIndexToPhysicalPoint(at[::-1]))[::-1]
        expected = np.array(layer.data_to_world(np.unravel_index(value, (3, 4, 5)))) * factor
        np.testing.assert_allclose(place, expected, atol=1e-4)


def test_labels_that_were_added_over_a_scan_lie_on_its_file(tmp_path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5), dtype=np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    image.SetOrigin((-12, 7, 100))
    sitk.WriteImage(image, str(tmp_path / "s.nii.gz"))
    viewer = ViewerModel()
    viewer.add_layer(Layer.create(*read_layers(str(tmp_path / "s.nii.gz"))[0]))
    viewer._new_labels()
    data, attributes, _ = viewer.layers[-1].as_layer_data_tuple()
    write_labels_layer(str(tmp_path / "l.nrrd"), data + 1, attributes)
    written = sitk.ReadImage(str(tmp_path / "l.nrrd"))
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(written, geometry)() == pytest.approx(getattr(image, geometry)()), geometry


def test_refusals(tmp_path):
    with pytest.raises(
        ScanError, match=r"l\.mha needs a labels layer with three axes \(z, y, x\), this one has 2"
    ):
        write_labels_layer(str(tmp_path / "l.mha"), np.zeros((3, 3), int), {})
    with pytest.raises(ScanError, match=r"l\.mha holds at most 255 label values, this layer has more; merge"):
        write_labels_layer(str(tmp_path / "l.mha"), np.full((3, 3, 3), 256), {})
