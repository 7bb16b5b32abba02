"""The one table of formats and the one entrance: what kind of thing a path is, and the sentence if none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from npe2 import PluginManifest
from PIL import Image
from typer.testing import CliRunner

import napari_covseg
from napari_covseg.cli import app
from napari_covseg.errors import ScanError
from napari_covseg.scans import LABEL_SUFFIXES, Scan, read_scan
from napari_covseg.scans.formats import DICOM, FORMATS, VOLUMES


def test_the_manifest_and_the_shells_help_say_what_the_table_says():
    found = PluginManifest.from_file(Path(napari_covseg.__file__).with_name("napari.yaml")).contributions
    patterns = [f"*{suffix}" for known in (*VOLUMES, DICOM) for suffix in known.suffixes]
    assert found.readers[0].filename_patterns == patterns  # pictures are left to napari
    assert tuple(found.writers[0].filename_extensions) == LABEL_SUFFIXES
    helps = [CliRunner().invoke(app, [command, "--help"]).stdout for command in ("info", "predict")]
    for known in FORMATS:
        assert all(known.name in text or known.suffixes[0][1:].upper() in text for text in helps)
    assert all(suffix in helps[1] for suffix in LABEL_SUFFIXES)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(ScanError, match=r"nowhere/x\.nii does not exist; check the path"):
        read_scan(tmp_path / "nowhere" / "x.nii")


def test_a_file_that_is_not_an_image(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague, " * 50)
    with pytest.raises(
        ScanError, match=r"letter\.txt is not an image that can be read; choose a DICOM folder"
    ):
        read_scan(tmp_path / "letter.txt")
    (tmp_path / "x.dcm").write_text("Dear colleague, " * 50)
    for asked in (tmp_path, tmp_path / "x.dcm"):
        with pytest.raises(
            ScanError, match=r"x\.dcm is not a DICOM file although its name says so.*; copy it again"
        ):
            read_scan(asked)


def test_a_folder_without_slices(tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ScanError, match=r"holds no slices; choose a DICOM folder or file, NIfTI"):
        read_scan(tmp_path)


def test_pictures_in_subfolders_are_named(tmp_path):
    for name in ("ct", "lungs"):
        (tmp_path / name).mkdir()
        Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / name / "0.png")
    with pytest.raises(
        ScanError, match=r"holds no slices itself, its folders ct, lungs do; choose one of them"
    ):
        read_scan(tmp_path)


def test_dicom_wins_over_pictures_and_volumes_beside_it(tmp_path, make_series):
    make_series(tmp_path)
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(tmp_path / "preview.png")
    assert read_scan(tmp_path).series_uid == "1.2.3.4.5"


def test_a_folder_with_one_volume_is_that_volume(tmp_path, ct):
    stored = ct((3, 4, 5))
    sitk.WriteImage(sitk.GetImageFromArray(stored), str(tmp_path / "s.nrrd"))
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, stored)
    sitk.WriteImage(sitk.GetImageFromArray(stored), str(tmp_path / "t.nrrd"))
    with pytest.raises(ScanError, match=r"holds 2 volumes \(s\.nrrd, t\.nrrd\); choose one of the files"):
        read_scan(tmp_path)


def test_a_string_will_do_and_a_header_rebuilds_the_scan(tmp_path, make_series):
    scan = read_scan(str(make_series(tmp_path / "ct", step=(0, 0.4, 2.0))))
    again = Scan.from_header(scan.header(), scan.voxels)
    for name in Scan.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(again, name), getattr(scan, name))


def test_what_cannot_be_opened(tmp_path, monkeypatch, make_slice):
    path = make_slice(tmp_path / "x.dcm")

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("napari_covseg.scans.formats.DICOM.read", refuse)
    with pytest.raises(
        ScanError, match=r"x\.dcm cannot be read \(Permission denied\); check the disk and your"
    ):
        read_scan(path)
