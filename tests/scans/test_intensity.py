"""Values are called HU where air and tissue lie as in a chest, in every format, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from thorax import outside, thorax
from typer.testing import CliRunner

from napari_covseg.cli import app
from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan
from napari_covseg.scans.intensity import Census, understand

T = thorax().astype(np.int32)


def padded(values: np.ndarray, padding: int) -> np.ndarray:
    values = values.copy()
    values[:, outside()] = padding
    return values


HU = {
    "as it is": T,
    **{f"padded with {padding}": padded(T, padding) for padding in (-1024, -2000, -3024, 32767)},
    "air cut off at -1000": padded(np.maximum(T, -1000), -1024),
    "lung window": np.clip(T, -1350, 150),
    "two even values": np.where(T > -500, 40, -1000),
    "lungs alone": np.where((T < -500) & (T > -950), T, 0),
    "one slice without lungs": T[:1],
}
GREY = {
    "stored, plus 1024": T + 1024,
    **{f"stored, padded with {p}": padded(T + 1024, p) for p in (0, -999, -1000, -1024, -2000, -3024)},
    "1024 taken off twice": T - 1024,
    "1024 taken off twice, padded": padded(T - 1024, -3024),
    "negative numbers in an unsigned store": T.astype(np.uint16),
    "plus 32768": T + 32768,
    "times ten": T * 10,
    "a tenth": T / 10,
    "inverted": -T,
    "moved by 500": T + 500,
    "mediastinal window": np.clip(T, -160, 240),
    "air is 0, as in magnetic resonance": padded(np.abs(T), -1000),
}


@pytest.mark.parametrize("name", [*HU, *GREY])
def test_what_is_hu(name):
    census = Census.sum(Census.of(slice_) for slice_ in (HU | GREY)[name])
    assert understand(census).intensity == ("HU" if name in HU else "grey")


def write(path: Path, values: np.ndarray, make_series) -> Path:
    if path.suffix:
        sitk.WriteImage(sitk.GetImageFromArray(values), str(path))
        return path
    return make_series(path, values - 1024, RescaleSlope=1, RescaleIntercept=0)  # writes 1024 more


@pytest.mark.parametrize("ending", ["", ".nii.gz", ".nrrd", ".mha", ".tif"])
def test_raw_values_with_a_padded_border_are_grey_in_every_format(tmp_path, make_series, ending):
    stored = padded(T + 1024, -2000).astype(np.int16)
    path = write(tmp_path / f"s{ending}", stored, make_series)
    scan = read_scan(path)
    inside = ~outside()
    low, high = stored[:, inside].min(), stored.max()
    if ending != ".tif":
        assert scan.notes == (
            f"Values {low} to {high} are not HU of a chest: taken as grey and scaled to 0-255. Less 1024 "
            "they could be: read it again with its values said to be HU+1024.",
        )
    assert scan.intensity == "grey"
    expected = np.rint((stored[:, inside] - low) * (255 / (high - low)))
    np.testing.assert_array_equal(np.sort(scan.voxels[:, inside].ravel()), np.sort(expected.ravel()))
    scan = read_scan(path, values="HU+1024")
    assert scan.intensity == "HU"
    np.testing.assert_array_equal(np.sort(scan.voxels[:, inside].ravel()), np.sort(T[:, inside].ravel()))
    assert read_scan(path, values="HU").voxels.max() == stored.max()
    assert (
        read_scan(path, values="grey").notes[-1].startswith(f"Values {low} to {high} are taken as grey, as")
    )


def test_the_shell_says_what_values_are(tmp_path):
    path = tmp_path / "s.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray((T + 1024).astype(np.uint16)), str(path))
    run = CliRunner().invoke(app, ["info", str(path), "--values", "hu+1024", "--json"])
    assert json.loads(run.stdout)["range"] == [int(T.min()), int(T.max())]
    run = CliRunner().invoke(app, ["info", str(path), "--values", "ml"])
    assert "--values cannot be ml; say one of HU, HU+1024, grey." in run.stderr
    with pytest.raises(ScanError, match=r"Values cannot be 'ml'; say one of HU"):
        read_scan(path, values="ml")


@pytest.mark.parametrize("offset", [0, 1024])
def test_nan_outside_of_the_field_of_view_is_air(tmp_path, offset):
    values = (T + offset).astype(np.float32)
    values[:, outside()] = np.nan
    values[3] = np.nan
    nib.Nifti1Image(values.T, np.diag([-1.0, -1, 1, 1])).to_filename(tmp_path / "s.nii")
    scan = read_scan(tmp_path / "s.nii")
    assert (scan.voxels[:, outside()] == (-1024 if offset == 0 else 0)).all()
    if offset == 0:
        kept = np.isfinite(values)
        np.testing.assert_array_equal(scan.voxels[kept], values[kept])
        assert (scan.voxels[3] == -1024).all()
    values[5, 40, 40] = np.nan  # in the body
    nib.Nifti1Image(values.T, np.diag([-1.0, -1, 1, 1])).to_filename(tmp_path / "s.nii")
    with pytest.raises(ScanError, match=r"not numbers \(NaN or infinite\) in slice 6"):
        read_scan(tmp_path / "s.nii")
    nib.Nifti1Image(np.full((4, 4, 4), np.nan), np.eye(4)).to_filename(tmp_path / "s.nii")
    with pytest.raises(ScanError, match=r"holds no numbers at all"):
        read_scan(tmp_path / "s.nii")
