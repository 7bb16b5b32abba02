"""napari's reader is a thin shell over read_scan."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from napari.layers import Layer
from PIL import Image

from napari_covseg._reader import get_reader
from napari_covseg.errors import ScanError
from napari_covseg.scans.scan import METADATA_KEY, Scan


def write_nifti(path):
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-1000, 1000, (3, 4, 5), dtype=np.int16))
    image.SetSpacing((0.5, 0.75, 2.0))
    sitk.WriteImage(image, str(path))
    return str(path)


def test_a_scan_is_an_image_layer_in_mm(tmp_path):
    path = write_nifti(tmp_path / "s.nii.gz")
    [data] = get_reader(path)(path)
    layer = Layer.create(*data)
    assert layer.name == "s"
    assert tuple(layer.scale) == (2.0, 0.75, 0.5)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert layer.axis_labels == ("z", "y", "x")
    assert tuple(layer.contrast_limits) == (-1350, 150)
    scan = layer.metadata[METADATA_KEY]
    assert isinstance(scan, Scan) and np.shares_memory(scan.voxels, layer.data)


def test_pictures_have_no_scale(tmp_path):
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "0.png")
    layer = Layer.create(*get_reader(str(tmp_path))(str(tmp_path))[0])
    assert tuple(layer.scale) == (1, 1, 1)
    assert tuple(layer.contrast_limits) == (0, 255)


def test_what_is_not_taken(tmp_path):
    assert get_reader([write_nifti(tmp_path / "s.nii")]) is None
    assert get_reader(str(tmp_path / "nowhere.nii")) is None
    (tmp_path / "x.zarr").mkdir()
    assert get_reader(str(tmp_path / "x.zarr")) is None


def test_a_refusal_keeps_its_sentence(tmp_path):
    (tmp_path / "x.nii").write_bytes(b"\0" * 500)
    with pytest.raises(ScanError, match=r"x\.nii is not a NIfTI image"):
        get_reader(str(tmp_path / "x.nii"))(str(tmp_path / "x.nii"))
