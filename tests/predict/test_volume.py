"""A scan in memory goes in, lungs with sides and findings in its shape come out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from torch import Tensor

from napari_covseg.labels import lesion
from napari_covseg.models.file import Model
from napari_covseg.predict.volume import predict_volume
from napari_covseg.scans.scan import Scan


def chest(
    intensity: str = "HU",
) -> tuple[Scan, npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Two dark blocks for lungs in grey tissue, a bright one in the right lung: 6 slices of 64 x 80."""
    right, left, spot = (np.zeros((6, 64, 80), bool) for _ in range(3))
    right[:, 16:48, 8:36], left[:, 16:48, 44:72], spot[2:4, 24:36, 16:28] = True, True, True
    voxels = np.zeros(right.shape, np.int16)
    voxels[right | left] = -850
    voxels[spot] = 1000
    spacing = (5.0, 2.0, 2.0)
    scan = Scan(
        voxels=voxels,
        spacing=None if intensity == "grey" else spacing,
        intensity=intensity,  # type: ignore[arg-type]
        affine=np.diag([*spacing, 1.0]),
        source_shape=voxels.shape,
        source_affine=np.eye(4),
    )
    return scan, right, left, spot


def dark_or_bright(slices: Tensor) -> Tensor:
    return ((slices - 0.5).abs() - 0.25) * 60


def bright(slices: Tensor) -> Tensor:
    return (slices - 0.75) * 60


@pytest.fixture
def model(make_model: Callable[..., Model]) -> Model:
    return make_model(80, lungs=dark_or_bright, lesion=bright)


def test_lungs_with_sides_and_findings(model: Model) -> None:
    scan, right, left, spot = chest()
    scan.voxels[:, 0, 0], scan.voxels[:, 0, 1] = -1000, 1000  # every slice has the same range
    told: list[tuple[int, int]] = []
    kept = np.zeros((6, 2, 64, 80), np.uint8)
    lungs, lesions = predict_volume(
        scan, model, batch=2, probabilities=kept, progress=lambda *done: told.append(done)
    )
    np.testing.assert_array_equal(kept[:, 1, 1:] > 127, spot[:, 1:])
    np.testing.assert_array_equal(lungs, right + 2 * left)
    np.testing.assert_array_equal(lesions, lesion("lesion").value * spot)
    assert lungs.dtype == lesions.dtype == np.uint8
    assert told == [(0, 6), (1, 6), (3, 6), (5, 6), (6, 6)]


def test_thresholds_reach_the_slices(model: Model) -> None:
    scan, *_ = chest()
    assert predict_volume(scan, model)[1].any()
    assert not predict_volume(scan, model, thresholds={"lesion": 1.0})[1].any()


def test_pictures_keep_their_sides_undetermined(model: Model) -> None:
    scan, right, left, _ = chest("grey")
    scan.voxels[:, 0, 0], scan.voxels[:, 0, 1] = -1000, 1000
    np.testing.assert_array_equal(predict_volume(scan, model)[0], 3 * (right | left))
