"""napari's writer is a thin shell over write_labels."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

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


def test_refusals(tmp_path):
    with pytest.raises(
        ScanError, match=r"l\.mha needs a labels layer with three axes \(z, y, x\), this one has 2"
    ):
        write_labels_layer(str(tmp_path / "l.mha"), np.zeros((3, 3), int), {})
    with pytest.raises(ScanError, match=r"l\.mha holds at most 255 label values, this layer has more; merge"):
        write_labels_layer(str(tmp_path / "l.mha"), np.full((3, 3, 3), 256), {})
