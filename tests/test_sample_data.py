from __future__ import annotations

import numpy as np
import pytest
from napari.layers import Layer

from napari_covseg import _sample_data
from napari_covseg._reader import METADATA_KEY
from napari_covseg.scans.scan import Scan


@pytest.fixture
def sample(monkeypatch: pytest.MonkeyPatch) -> tuple:
    monkeypatch.setattr(_sample_data, "SHAPE", (20, 64, 64))
    monkeypatch.setattr(_sample_data, "SPACING", (16.0, 5.6, 5.6))
    layers = _sample_data.make_sample_data()
    assert len(layers) == 1
    return layers[0]


def test_the_sample_becomes_an_image_layer_in_mm(sample: tuple) -> None:
    layer = Layer.create(*sample)
    assert layer.name == "CovSeg phantom chest CT"
    assert tuple(layer.scale) == (16.0, 5.6, 5.6)
    assert [str(unit) for unit in layer.units] == ["millimeter"] * 3
    assert tuple(layer.axis_labels) == ("z", "y", "x")
    assert tuple(layer.contrast_limits) == (-1350, 150)
    assert layer.data.dtype == np.int16


def test_the_sample_carries_its_scan(sample: tuple) -> None:
    data, attributes, _ = sample
    scan = attributes["metadata"][METADATA_KEY]
    assert isinstance(scan, Scan)
    assert scan.voxels is data
    assert scan.patient_id == f"phantom-{_sample_data.SEED}"
    assert scan.intensity == "HU"
