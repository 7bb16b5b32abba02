"""Labels go back onto the file they came from, voxel by voxel, whoever reads it."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from napari_covseg.errors import ScanError
from napari_covseg.labels import LESIONS
from napari_covseg.scans import label_files, read_mask, read_scan, scan_of_array, write_labels
from napari_covseg.scans.itk import MetaImage

WAYS = [(order, signs) for order in permutations(range(3)) for signs in product((1.0, -1.0), repeat=3)]
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")


def write_source(path: Path, way, spacing=(0.75, 1.5, 2.5), shape=(3, 4, 5)) -> np.ndarray:
    """Write a CT-like volume with SimpleITK, its axes lying in the given way; return the stored array."""
    order, signs = way
    stored = np.random.default_rng(1).integers(-1000, 1000, shape, dtype=np.int16)
    stored.flat[0] = -1000
    image = sitk.GetImageFromArray(stored)
    image.SetSpacing(spacing)
    image.SetOrigin((-12.5, 40.0, 7.25))
    image.SetDirection((np.eye(3)[:, order] * signs).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return stored


def assert_lies_on_source(source: Path, written: Path, expected: np.ndarray) -> None:
    original, labels = sitk.ReadImage(str(source)), sitk.ReadImage(str(written))
    assert labels.GetPixelID() == sitk.sitkUInt8
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), expected)
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        found, wanted = getattr(labels, geometry)(), getattr(original, geometry)()
        np.testing.assert_allclose(found, wanted, atol=1e-5, err_msg=geometry)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("source_ending", [".nii.gz", ".nrrd", ".mha"])
def test_round_trip_in_all_48_orientations(tmp_path, ending, source_ending):
    for n, way in enumerate(WAYS):
        source = tmp_path / f"s{n}{source_ending}"
        stored = write_source(source, way)
        scan = read_scan(source)
        labels = (scan.voxels % 5).astype(np.uint8)
        written = tmp_path / f"l{n}{ending}"
        write_labels(labels, scan, written)
        assert_lies_on_source(source, written, stored % 5)
        if ".nii" in ending and source_ending == ".nii.gz":
            ours, theirs = nib.load(written), nib.load(source)
            np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
            np.testing.assert_allclose(ours.get_qform(), ours.get_sform(), atol=1e-5)
            assert (int(ours.header["qform_code"]), int(ours.header["sform_code"])) == (1, 1)
            np.testing.assert_array_equal(np.asarray(ours.dataobj), stored.T % 5)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    way=st.sampled_from(WAYS),
    spacing=st.tuples(*[st.floats(0.2, 10).map(lambda v: round(v, 3))] * 3),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    ending=st.sampled_from(ENDINGS),
)
def test_round_trip_of_any_size_and_spacing(tmp_path, way, spacing, shape, ending):
    # ITK takes the voxels of x.nii for x.nii.gz where both are there: each ending has its own name.
    source, written = tmp_path / "source.nii.gz", tmp_path / f"labels_{ending[1:4]}{len(ending)}{ending}"
    stored = write_source(source, way, spacing, shape)
    scan = read_scan(source)
    np.testing.assert_allclose(sorted(scan.spacing), sorted(spacing), rtol=1e-5)
    write_labels((scan.voxels % 7).astype(np.uint8), scan, written)
    assert_lies_on_source(source, written, stored % 7)
    again = read_scan(written)
    np.testing.assert_allclose(again.affine, scan.affine, atol=1e-4)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_gantry_tilt_is_written_as_it_was_read(tmp_path, make_series, ending):
    folder = make_series(tmp_path / "tilted", step=(0.0, 0.6, 2.0))
    scan = read_scan(folder)
    labels = (scan.voxels % 3).astype(np.uint8)
    write_labels(labels, scan, tmp_path / f"l{ending}")
    again = read_scan(tmp_path / f"l{ending}")
    np.testing.assert_allclose(again.source_affine, scan.source_affine, atol=1e-5)
    np.testing.assert_array_equal(again.voxels, labels)
    if ending == ".nii":
        np.testing.assert_allclose(
            nib.load(tmp_path / "l.nii").affine, np.diag([-1, -1, 1, 1]) @ scan.source_affine, atol=1e-5
        )


def test_dicom_labels_lie_where_simpleitk_puts_the_series(tmp_path, make_series):
    folder = make_series(
        tmp_path / "ct", ImageOrientationPatient=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0], step=(3, 0, 0)
    )
    scan = read_scan(folder)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    write_labels((scan.voxels % 9).astype(np.uint8), scan, tmp_path / "l.nrrd")
    labels = sitk.ReadImage(str(tmp_path / "l.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(labels), sitk.GetArrayFromImage(image) % 9)
    assert labels.GetOrigin() == pytest.approx(image.GetOrigin())
    assert labels.GetDirection() == pytest.approx(image.GetDirection())
    assert labels.GetSpacing() == pytest.approx(image.GetSpacing())


def test_pictures_become_a_volume_with_one_z_per_file(tmp_path):
    for n in range(1, 12):
        Image.fromarray(np.arange(20, dtype=np.uint8).reshape(4, 5) + n).save(tmp_path / f"slice{n}.png")
    scan = read_scan(tmp_path)
    labels = np.arange(scan.voxels.size, dtype=np.uint8).reshape(scan.voxels.shape)
    write_labels(labels, scan, tmp_path / "out.nii.gz")
    image = sitk.ReadImage(str(tmp_path / "out.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), labels)
    assert image.GetSpacing() == (1, 1, 1)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert any("1 mm" in note for note in scan.notes)


def test_header_round_trip_still_writes_the_same_file(tmp_path):
    write_source(tmp_path / "s.nrrd", WAYS[17])
    scan = read_scan(tmp_path / "s.nrrd")
    rebuilt = type(scan).from_header(scan.header(), scan.voxels)
    labels = (scan.voxels % 4).astype(np.uint8)
    write_labels(labels, scan, tmp_path / "a.nii.gz")
    write_labels(labels, rebuilt, tmp_path / "b.nii.gz")
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_in_capitals_and_names_in_any_letters(tmp_path, ending):
    write_source(tmp_path / "s.nrrd", WAYS[3])
    scan = read_scan(tmp_path / "s.nrrd")
    folder = tmp_path / "Ärzte"
    folder.mkdir()
    labels = (scan.voxels % 4).astype(np.uint8)
    write_labels(labels, scan, folder / f"Müller{ending.upper()}")
    assert [path.name for path in folder.iterdir()] == [f"Müller{ending.upper()}"]
    np.testing.assert_array_equal(read_scan(folder).voxels, labels)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_source(tmp_path / "s.nrrd", WAYS[0])
    scan = read_scan(tmp_path / "s.nrrd")
    target = tmp_path / "out.mha"
    target.write_bytes(b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(MetaImage, "write", fail)
    with pytest.raises(ScanError, match=r"out\.mha cannot be written \(No space left on device\)"):
        write_labels(np.zeros(scan.voxels.shape, np.uint8), scan, target)
    assert target.read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.mha", "s.nrrd"]


def test_refusals(tmp_path):
    write_source(tmp_path / "s.nrrd", WAYS[5])
    scan = read_scan(tmp_path / "s.nrrd")
    labels = np.zeros(scan.voxels.shape, np.uint8)
    with pytest.raises(
        ScanError, match=r"x\.png has an ending that labels cannot be written to; use \.nii\.gz"
    ):
        write_labels(labels, scan, tmp_path / "x.png")
    with pytest.raises(ScanError, match=r"shape .* not that of s; export them with the scan"):
        write_labels(labels[:-1], scan, tmp_path / "x.mha")
    with pytest.raises(ScanError, match="must be uint8"):
        write_labels(labels.astype(np.int64), scan, tmp_path / "x.mha")
    with pytest.raises(ScanError, match=r"cannot be written \(No such file or directory\)"):
        write_labels(labels, scan, tmp_path / "nowhere" / "x.mha")


@pytest.mark.parametrize("ending", [".nii.gz", ".mha"])
def test_names_and_colours_lie_in_a_table_beside_a_file_that_has_no_place_for_them(
    tmp_path: Path, ending: str
) -> None:
    scan = scan_of_array(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), "scan")
    path = tmp_path / f"l{ending}"
    write_labels(np.ones((3, 4, 5), np.uint8), scan, path, LESIONS)
    table = [line.split("\t") for line in (tmp_path / "l.tsv").read_text().splitlines()]
    assert table[0] == ["index", "name", "color"]
    assert [(int(index), name, tuple(bytes.fromhex(colour[1:]))) for index, name, colour in table[1:]] == [
        (label.value, label.name, label.colour) for label in LESIONS
    ]
    assert label_files(path) == (path, tmp_path / "l.tsv")


def test_a_nrrd_file_holds_names_and_colours_as_segments(tmp_path: Path) -> None:
    scan = scan_of_array(np.arange(60, dtype=np.int16).reshape(3, 4, 5), np.eye(4), "scan")
    path = tmp_path / "l.nrrd"
    labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5) % 5
    write_labels(labels, scan, path, LESIONS)
    image = sitk.ReadImage(str(path))
    for number, label in enumerate(LESIONS):
        own = {
            key: image.GetMetaData(f"Segment{number}_{key}")
            for key in ("Name", "LabelValue", "Color", "Extent")
        }
        assert (own["Name"], own["LabelValue"], own["Extent"]) == (
            label.name,
            str(label.value),
            "0 4 0 3 0 2",
        )
        assert [round(255 * float(part)) for part in own["Color"].split()] == list(label.colour)
    np.testing.assert_array_equal(read_mask(path, None), labels)
    assert label_files(path) == (path,) == tuple(tmp_path.iterdir())
