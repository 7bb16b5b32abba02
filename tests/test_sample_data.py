from __future__ import annotations

import importlib

import numpy as np
from napari.layers import Layer

from napari_covseg import _sample_data
from napari_covseg.scans.scan import METADATA_KEY, Scan


def test_the_sample_becomes_an_image_layer_in_mm() -> None:
    (sample,) = _sample_data.make_sample_data()
    layer = Layer.create(*sample)
    assert layer.name == "CovSeg phantom chest CT"
    assert tuple(layer.scale) == (5.0, 1.4, 1.4)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    assert tuple(layer.contrast_limits) == (-1350, 150)
    assert layer.data.dtype == np.int16


def test_the_sample_carries_its_scan() -> None:
    ((data, attributes, _),) = _sample_data.make_sample_data()
    scan = attributes["metadata"][METADATA_KEY]
    assert isinstance(scan, Scan)
    assert scan.voxels is data
    assert (scan.patient_id, scan.intensity, scan.path) == ("phantom-7", "HU", "")


def test_the_sample_is_the_phantom_that_the_generator_makes() -> None:
    make_phantom = importlib.import_module("make_phantom")
    ((voxels, attributes, _),) = _sample_data.make_sample_data()
    made = make_phantom.phantom(*make_phantom.SAMPLE_GRID).scan
    assert np.abs(voxels - made.voxels)[made.voxels >= -940].max() <= 6  # no step of a lung window's greys
    assert np.abs(voxels - made.voxels).max() <= 26
    np.testing.assert_allclose(attributes["metadata"][METADATA_KEY].affine, made.affine, atol=1e-3)
    assert _sample_data.FILE.stat().st_size < 1.5e6
