"""NIfTI, NRRD and MetaImage in: values, geometry, and the sentence for what is refused."""

from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan

ENDINGS = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr")


def write(path: Path, stored: np.ndarray, spacing=(0.7, 0.8, 2.0), compress: bool = False) -> Path:
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(spacing[: image.GetDimension()])
    sitk.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("ending", ENDINGS)
def test_values_and_spacing(tmp_path, ct, ending, compress):
    stored = ct((4, 5, 6))
    scan = read_scan(write(tmp_path / f"s{ending}", stored, compress=compress))
    np.testing.assert_array_equal(scan.voxels, stored)
    assert scan.spacing == pytest.approx((2.0, 0.8, 0.7))
    assert (scan.intensity, scan.name, scan.notes) == ("HU", "s", ())
    np.testing.assert_allclose(scan.affine @ [1, 2, 3, 1], [2.1, 1.6, 2.0, 1], rtol=1e-6)


@pytest.mark.parametrize("kind", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_every_data_type(tmp_path, kind, ending):
    stored = np.arange(120).reshape(4, 5, 6).astype(kind)
    scan = read_scan(write(tmp_path / f"s{ending}", stored))
    np.testing.assert_array_equal(scan.voxels, stored)
    assert (scan.voxels.dtype, scan.intensity) == (np.int16, "grey")


def test_big_endian(tmp_path, ct):
    stored = ct((4, 5, 6))
    header = nib.Nifti1Header(endianness=">")
    nib.Nifti1Image(stored.T, np.eye(4), header).to_filename(tmp_path / "s.nii")
    np.testing.assert_array_equal(
        np.sort(read_scan(tmp_path / "s.nii").voxels.ravel()), np.sort(stored.ravel())
    )
    head = (
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 5 4\nspacings: 1 1 2\nendian: big\nencoding: raw\n\n"
    )
    (tmp_path / "s.nrrd").write_bytes(head.encode() + stored.astype(">i2").tobytes())
    scan = read_scan(tmp_path / "s.nrrd")
    np.testing.assert_array_equal(scan.voxels, stored)
    assert "does not say how the patient lies" in scan.notes[0]


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_nifti_slope_and_world_are_nibabels(tmp_path, kind):
    values = np.random.default_rng(0).uniform(-1000, 1000, (6, 5, 4))
    affine = np.array([[0, -0.7, 0, 30], [0.8, 0, 0, -20], [0, 0, -2.0, 5], [0, 0, 0, 1]])
    image = kind(values, affine)
    image.set_data_dtype(np.int16)
    image.to_filename(tmp_path / "s.nii.gz")
    scan = read_scan(tmp_path / "s.nii.gz")
    oracle = nib.load(tmp_path / "s.nii.gz")
    from_world = np.linalg.inv(oracle.affine)
    for zyx in np.ndindex(*scan.voxels.shape):
        right, front, up = np.array([-1, -1, 1]) * (scan.affine @ [*zyx, 1])[:3]
        ijk = tuple(np.rint(from_world @ [right, front, up, 1]).astype(int)[:3])
        assert scan.voxels[zyx] == np.rint(oracle.get_fdata()[ijk])


def test_nifti_in_metres(tmp_path, ct):
    image = nib.Nifti1Image(ct((4, 5, 6)).T, np.diag([7e-4, 8e-4, 2e-3, 1]))
    image.header.set_xyzt_units("meter")
    image.to_filename(tmp_path / "s.nii")
    assert read_scan(tmp_path / "s.nii").spacing == pytest.approx((2.0, 0.8, 0.7))


def test_two_orientations_that_differ_are_said(tmp_path, ct):
    image = nib.Nifti1Image(ct((4, 5, 6)).T, np.diag([-1.0, -1, 2, 1]))
    image.set_qform(np.diag([1.0, -1, 2, 1]), code=1)
    image.set_sform(np.diag([-1.0, -1, 2, 1]), code=1)
    image.to_filename(tmp_path / "s.nii")
    scan = read_scan(tmp_path / "s.nii")
    assert "says in two ways how the patient lies" in scan.notes[0]
    np.testing.assert_allclose(scan.source_affine, np.diag([1, 1, 2, 1]))


def test_nifti_without_orientation_is_read_with_a_note(tmp_path, ct):
    image = nib.Nifti1Image(ct((4, 5, 6)).T, None)
    image.header.set_zooms((0.7, 0.8, 2.0))
    image.header["qform_code"] = image.header["sform_code"] = 0
    image.to_filename(tmp_path / "s.nii")
    scan = read_scan(tmp_path / "s.nii")
    assert scan.spacing == pytest.approx((2.0, 0.8, 0.7))
    assert "does not say how the patient lies" in scan.notes[0]


def test_float_hu_is_rounded_and_padding_is_air(tmp_path):
    stored = (
        np.array([-3024.0, -2000.4, -1024.0, -999.6, 0.4, 70000.0], np.float32).reshape(1, 2, 3).repeat(2, 0)
    )
    scan = read_scan(write(tmp_path / "s.nii", stored))
    np.testing.assert_array_equal(scan.voxels[0], [[-1024, -1024, -1024], [-1000, 0, 32767]])


def test_what_is_neither_hu_nor_8_bit_is_scaled_and_said(tmp_path):
    ramp = np.linspace(0, 1, 60).reshape(3, 4, 5)
    scan = read_scan(write(tmp_path / "unit.nii", ramp.astype(np.float32)))
    np.testing.assert_array_equal(scan.voxels, np.rint(ramp.astype(np.float32).astype(float) * 255))
    assert "Values 0 to 1 are not HU of a chest: taken as grey and scaled to 0-255." in scan.notes
    scan = read_scan(write(tmp_path / "raw.mha", (ramp * 4095).astype(np.uint16)))
    assert (scan.intensity, scan.voxels.min(), scan.voxels.max()) == ("grey", 0, 255)
    assert scan.spacing is not None


def test_a_sheared_sform_is_kept(tmp_path, ct):
    affine = np.diag([-0.7, -0.8, 2.0, 1])
    affine[1, 2] = -0.5
    nib.Nifti1Image(ct((4, 5, 6)).T, affine).to_filename(tmp_path / "s.nii.gz")
    scan = read_scan(tmp_path / "s.nii.gz")
    np.testing.assert_allclose(scan.source_affine, np.diag([-1, -1, 1, 1]) @ affine, rtol=1e-6)
    assert "Gantry tilt of 14.0°" in scan.notes[0]


@pytest.mark.parametrize("space, signs", [("right-anterior-superior", (-1, -1, 1)), ("LAS", (1, -1, 1))])
def test_nrrd_spaces(tmp_path, ct, space, signs):
    path = write(tmp_path / "s.nrrd", ct((4, 5, 6)))
    path.write_bytes(path.read_bytes().replace(b"left-posterior-superior", space.encode()))
    columns = read_scan(path).source_affine[:3, :3]
    np.testing.assert_allclose(columns, np.diag([0.7, 0.8, 2.0]) * np.array(signs)[:, None])


def test_one_slice_has_no_known_thickness(tmp_path, ct):
    for ending in (".nii.gz", ".nrrd", ".mha"):
        scan = read_scan(write(tmp_path / f"s{ending}", ct((5, 6))))
        assert (scan.voxels.shape, scan.spacing) == ((1, 5, 6), None)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_truncated(tmp_path, ct, ending):
    path = write(tmp_path / f"s{ending}", ct((4, 50, 60)), compress=ending != ".nii")
    data = path.read_bytes()
    for part in (0.02, 0.3, 0.7, 0.999):
        path.write_bytes(data[: int(part * len(data))])
        with pytest.raises(ScanError, match=r"s\.\w+(\.gz)? (is truncated or damaged.*copy it|is not a)"):
            read_scan(path)


def test_a_flipped_bit_in_compressed_voxels_is_noticed(tmp_path, ct):
    path = write(tmp_path / "s.nii.gz", ct((4, 50, 60)))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    with pytest.raises(ScanError, match=r"s\.nii\.gz is truncated or damaged"):
        read_scan(path)


def test_a_declared_size_beyond_the_file_is_not_allocated(tmp_path):
    header = nib.Nifti1Header()
    header.set_data_dtype(np.int16)
    header.set_data_shape((30000, 30000, 30000))
    header["magic"], header["vox_offset"] = b"n+1", 352
    (tmp_path / "s.nii").write_bytes(header.binaryblock + bytes(1000))
    (tmp_path / "t.nii.gz").write_bytes(gzip.compress(header.binaryblock + bytes(1000)))
    tracemalloc.start()
    for name in ("s.nii", "t.nii.gz"):
        with pytest.raises(ScanError, match="is truncated or damaged"):
            read_scan(tmp_path / name)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_four_dimensions(tmp_path, ending):
    path = tmp_path / f"s{ending}"
    frames = [sitk.GetImageFromArray(np.full((3, 4, 5), n, np.int16)) for n in range(2)]
    sitk.WriteImage(sitk.JoinSeries(frames), str(path))
    with pytest.raises(ScanError, match=r"has 4 dimensions \(5 x 4 x 3 x 2\), a scan has three; export one"):
        read_scan(path)


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_true_colour(tmp_path, ending):
    image = sitk.GetImageFromArray(np.zeros((3, 4, 5, 3), np.uint8), isVector=True)
    path = tmp_path / f"s{ending}"
    sitk.WriteImage(image, str(path))
    with pytest.raises(
        ScanError, match=r"is a true colour( or vector)? image, not CT values; export the|dimensions"
    ):
        read_scan(path)
    if ending == ".nii.gz":
        rgb = np.zeros((3, 4, 5), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        nib.Nifti1Image(rgb, np.eye(4)).to_filename(path)
        with pytest.raises(
            ScanError, match="is a true colour image, not CT values; export the original scan"
        ):
            read_scan(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_not_a_number(tmp_path, ct, ending, value):
    stored = ct((3, 4, 5)).astype(np.float32)
    stored[1, 2, 3] = value
    with pytest.raises(
        ScanError, match=r"holds values that are not numbers \(NaN or infinite\) in slice 2; export"
    ):
        read_scan(write(tmp_path / f"s{ending}", stored))


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha"])
def test_all_constant(tmp_path, ending):
    with pytest.raises(ScanError, match=r"s\S+ holds the value -2000 everywhere"):
        read_scan(
            write(tmp_path / f"s{ending}", np.array([-2000, -3024], np.int16).repeat(30).reshape(3, 4, 5))
        )
    with pytest.raises(
        ScanError, match=r"s\S+ holds the value -7 everywhere, so there is no picture in it; export"
    ):
        read_scan(write(tmp_path / f"s{ending}", np.full((3, 4, 5), -7, np.int16)))


NO_SPACING = r"s\.\w+ has a zero or missing voxel spacing, so nothing can be measured in it; export it again"


def test_zero_spacing_in_nifti(tmp_path, ct):
    image = nib.Nifti1Image(ct((3, 4, 5)), np.eye(4))
    image.header["sform_code"] = 0
    image.header["qform_code"] = 1
    image.header["pixdim"][3] = 0
    (tmp_path / "s.nii").write_bytes(image.header.binaryblock + b"\0" * 4 + ct((3, 4, 5)).tobytes())
    with pytest.raises(ScanError, match=NO_SPACING):
        read_scan(tmp_path / "s.nii")


@pytest.mark.parametrize("line", ["", "ElementSpacing = 1 1 0\n"])
def test_zero_spacing_in_metaimage(tmp_path, ct, line):
    path = write(tmp_path / "s.mha", ct((3, 4, 5)), spacing=(1, 1, 1))
    path.write_bytes(path.read_bytes().replace(b"ElementSpacing = 1 1 1\n", line.encode()))
    with pytest.raises(ScanError, match=NO_SPACING):
        read_scan(path)


@pytest.mark.parametrize("line", ["", "spacings: 1 1 0\n", "space directions: (1,0,0) (0,1,0) (0,0,0)\n"])
def test_zero_spacing_in_nrrd(tmp_path, ct, line):
    head = f"NRRD0004\ntype: short\ndimension: 3\nsizes: 5 4 3\n{line}endian: little\nencoding: raw\n\n"
    (tmp_path / "s.nrrd").write_bytes(head.encode() + ct((3, 4, 5)).tobytes())
    with pytest.raises(ScanError, match=NO_SPACING):
        read_scan(tmp_path / "s.nrrd")


@pytest.mark.parametrize("name", ["s.nii", "s.nii.gz", "s.nrrd", "s.mha"])
def test_another_file_under_the_name_of_a_volume(tmp_path, name):
    (tmp_path / name).write_bytes(b"hello, this is some text about something else\n" * 40)
    with pytest.raises(
        ScanError, match=r"is not an? \w+ image although its name|is not a MetaImage although its name"
    ):
        read_scan(tmp_path / name)


def test_a_header_without_its_data_file(tmp_path, ct):
    path = write(tmp_path / "s.mhd", ct((3, 4, 5)))
    (tmp_path / "s.raw").unlink()
    with pytest.raises(
        ScanError, match=r"s\.mhd needs its data file s\.raw, which is not beside it; copy both"
    ):
        read_scan(path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [np.int16, np.float32])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_peak_memory_is_little_more_than_the_scan(tmp_path, ending, kind):
    stored = np.random.default_rng(0).integers(-1000, 1000, (64, 192, 192)).astype(kind)
    path = write(tmp_path / f"s{ending}", stored, compress=ending != ".nii")
    read_scan(write(tmp_path / f"first{ending}", stored[:2]))  # libraries load outside the measurement
    tracemalloc.start()
    scan = read_scan(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.2 * scan.voxels.nbytes
