"""DICOM in: what is read, and the sentence for what is not."""

from __future__ import annotations

import json
import re
import shutil
import tracemalloc

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLosslessSV1,
)

from napari_covseg.errors import ScanError
from napari_covseg.scans import list_series, read_scan

SYNTAXES = [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEGLosslessSV1]


def test_slices_are_ordered_by_position_and_spaced_by_it(tmp_path, make_series, ct):
    volume = ct((5, 12, 10))
    make_series(tmp_path / "a" / "b", volume, names=["z", "3", "x.dcm", "IM10", "IM9"])
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volume)
    assert scan.voxels.dtype == np.int16
    assert scan.spacing == pytest.approx((2.0, 0.8, 0.7))  # SliceThickness says 9
    assert scan.intensity == "HU"
    np.testing.assert_allclose(scan.affine @ [1, 2, 3, 1], [-30 + 3 * 0.7, -20 + 2 * 0.8, -98, 1])
    assert scan.notes == ()


def test_slices_from_the_head_down_are_turned_to_rise(tmp_path, make_series, ct):
    volume = ct((4, 12, 10))
    make_series(tmp_path, volume, step=(0, 0, -2.0))
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, volume[::-1])


@pytest.mark.parametrize(
    "orientation, step",
    [([-1, 0, 0, 0, -1, 0], (0, 0, 3)), ([1, 0, 0, 0, 0, -1], (0, 3, 0)), ([0, 1, 0, 0, 0, -1], (3, 0, 0))],
)
def test_other_planes_lie_where_simpleitk_puts_them(tmp_path, make_series, orientation, step):
    make_series(tmp_path, step=step, ImageOrientationPatient=orientation)
    scan = read_scan(tmp_path)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path)))
    image = reader.Execute()
    for zyx in np.ndindex(*scan.voxels.shape):
        index = image.TransformPhysicalPointToIndex((scan.affine @ [*zyx, 1])[:3])
        assert image[index] == scan.voxels[zyx]
    assert (np.abs(scan.affine[[2, 1, 0], [0, 1, 2]]) > 0.5).all()
    assert (scan.affine[[2, 1, 0], [0, 1, 2]] > 0).all()


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_transfer_syntaxes(tmp_path, make_series, ct, syntax):
    volume = ct((3, 12, 10))
    make_series(tmp_path, volume, syntax=syntax)
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volume)


def test_big_endian(tmp_path, make_slice, ct):
    values = ct((12, 10))
    path = make_slice(
        tmp_path / "b.dcm",
        values,
        syntax=ExplicitVRBigEndian,
        PixelData=(values + 1024).astype(">i2").tobytes(),
    )
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)


def test_run_length_encoding(tmp_path, make_slice, ct):
    values = ct((12, 10))
    path = make_slice(tmp_path / "r.dcm", values)
    dataset = pydicom.dcmread(path)
    dataset.compress(pydicom.uid.RLELossless)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)


def test_a_file_without_preamble(tmp_path, make_slice, ct):
    values = ct((12, 10))
    path = make_slice(tmp_path / "new.dcm", values, syntax=ImplicitVRLittleEndian)
    dataset = pydicom.dcmread(path)
    del dataset.file_meta
    dataset.preamble = None
    pydicom.dcmwrite(tmp_path / "old", dataset, implicit_vr=True, little_endian=True)
    assert (tmp_path / "old").read_bytes()[128:132] != b"DICM"
    np.testing.assert_array_equal(read_scan(tmp_path / "old").voxels[0], values)


@pytest.mark.parametrize("padding", [-2000, -2048, -3024])
def test_padding_becomes_air(tmp_path, make_series, ct, padding):
    volume = ct((3, 12, 10))
    volume[:, :2] = padding
    make_series(tmp_path, volume)
    scan = read_scan(tmp_path)
    assert (scan.voxels[:, :2] == -1024).all()
    np.testing.assert_array_equal(scan.voxels[:, 2:], volume[:, 2:])


def test_padding_written_into_an_unsigned_field(tmp_path, make_slice):
    stored = np.full((12, 10), 1000, np.uint16)
    stored[0] = 63536  # -2000 as it comes out unsigned
    stored[-1] = 200
    path = make_slice(
        tmp_path / "u.dcm", PixelData=stored.tobytes(), PixelRepresentation=0, BitsStored=12, HighBit=11
    )
    voxels = read_scan(path).voxels[0]
    assert (voxels[0] == -1024).all() and (voxels[1:-1] == -24).all()


def test_a_slope_is_applied(tmp_path, make_slice):
    stored = np.arange(120, dtype=np.int16).reshape(12, 10)
    path = make_slice(
        tmp_path / "s.dcm", PixelData=stored.tobytes(), RescaleSlope="2.5", RescaleIntercept="-1000.5"
    )
    np.testing.assert_array_equal(read_scan(path).voxels[0], np.rint(stored * 2.5 - 1000.5))


def test_a_gantry_tilt_is_kept_and_said(tmp_path, make_series):
    make_series(tmp_path, step=(0, 0.5, 2.0))
    scan = read_scan(tmp_path)
    np.testing.assert_allclose(scan.source_affine[:3, 2], [0, 0.5, 2.0])
    assert scan.spacing[0] == pytest.approx(2.0)
    assert "Gantry tilt of 14.0°" in scan.notes[0]


@pytest.mark.parametrize("uid", ["", "09bc8aea-ff9c-4106-8514-294cbcf9a082"])
@pytest.mark.filterwarnings("ignore:Invalid value for VR UI")
def test_odd_uids(tmp_path, make_series, uid):
    make_series(tmp_path, SOPInstanceUID="", SeriesInstanceUID=uid, StudyInstanceUID=uid)
    scan = read_scan(tmp_path)
    assert len(scan.voxels) == 5
    assert scan.series_uid == uid
    assert scan.sop_uids == ("",) * 5


def test_identifiers_are_kept_and_the_name_is_not(tmp_path, make_series):
    make_series(tmp_path)
    scan = read_scan(tmp_path)
    assert (scan.patient_id, scan.study_uid, scan.series_uid) == ("P1", "1.2.3.4", "1.2.3.4.5")
    assert scan.frame_of_reference_uid == "1.2.3.4.6"
    in_order = [str(pydicom.dcmread(tmp_path / f"IM{z:04d}.dcm").SOPInstanceUID) for z in range(5)]
    assert list(scan.sop_uids) == in_order
    assert "Secret" not in json.dumps(scan.header())


def test_uids_follow_the_slices_when_they_are_turned(tmp_path, make_series):
    make_series(tmp_path, ImageOrientationPatient=[1, 0, 0, 0, -1, 0])  # the normal points to the feet
    scan = read_scan(tmp_path)
    top = pydicom.dcmread(tmp_path / "IM0004.dcm")
    assert scan.sop_uids[-1] == top.SOPInstanceUID
    assert scan.affine[2, 3] == -100


def test_the_axial_ct_with_most_slices_is_chosen(tmp_path, make_series, make_slice, ct):
    make_series(tmp_path / "thick", ct((3, 12, 10)), SeriesInstanceUID="1.1")
    make_series(tmp_path / "thin", ct((6, 12, 10)), SeriesInstanceUID="1.2", SeriesDescription="lung")
    coronal = [1, 0, 0, 0, 0, -1]
    make_series(
        tmp_path / "cor",
        ct((9, 12, 10)),
        SeriesInstanceUID="1.3",
        ImageOrientationPatient=coronal,
        step=(0, 1, 0),
    )
    make_series(
        tmp_path / "mr",
        ct((12, 12, 10)),
        SeriesInstanceUID="1.4",
        Modality="MR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.4",
    )
    make_slice(
        tmp_path / "report.dcm",
        drop=["Rows", "Columns", "PixelData"],
        Modality="SR",
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22",
    )
    scan = read_scan(tmp_path)
    assert (scan.series_uid, scan.voxels.shape) == ("1.2", (6, 12, 10))
    assert len(scan.notes) == 3
    assert any("9 coronal CT slices, 1.3" in note for note in scan.notes)
    found = [(info.uid, info.modality, info.slices, info.plane) for info in list_series(tmp_path)]
    assert found == [
        ("1.2", "CT", 6, "axial"),
        ("1.1", "CT", 3, "axial"),
        ("1.3", "CT", 9, "coronal"),
        ("1.4", "MR", 12, "axial"),
    ]
    assert len(read_scan(tmp_path, series="1.1").voxels) == 3
    with pytest.raises(
        ScanError, match=r"has no series 9\.9; choose one of: 'lung': 6 axial CT slices, 1\.2; "
    ):
        read_scan(tmp_path, series="9.9")
    with pytest.raises(
        ScanError, match=r"is not a CT scan: its series thorax is MR, not CT; choose a CT series"
    ):
        read_scan(tmp_path, series="1.4")


def test_series_without_uid_are_told_apart_by_their_number(tmp_path, make_series, ct):
    make_series(tmp_path, ct((3, 12, 10)), names=list("abc"), SeriesInstanceUID="", SeriesNumber=1)
    make_series(tmp_path, ct((4, 12, 10)), names=list("defg"), SeriesInstanceUID="", SeriesNumber=2)
    assert len(read_scan(tmp_path).voxels) == 4
    second = list_series(tmp_path)[1]
    assert len(read_scan(tmp_path, series=second.uid).voxels) == 3


def test_scouts_and_copies_are_left_out(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(
        tmp_path / "scout.dcm", np.zeros((30, 30), np.int16), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
    )
    shutil.copy(tmp_path / "IM0002.dcm", tmp_path / "copy of IM0002.dcm")
    scan = read_scan(tmp_path)
    assert len(scan.voxels) == 5
    assert "1 scout image" in scan.notes[0] and "1 file(s) that are copies" in scan.notes[1]


def test_raw_data_without_pixels_does_not_disturb(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    gone = ["Rows", "Columns", "PixelData"]
    make_slice(tmp_path / "raw.dcm", drop=gone, SOPClassUID="1.2.840.10008.5.1.4.1.1.66", Modality="CT")
    assert len(read_scan(tmp_path).voxels) == 5


@pytest.mark.slow
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLosslessSV1])
def test_peak_memory_is_little_more_than_the_scan(tmp_path, make_series, ct, syntax):
    make_series(tmp_path / "few", ct((2, 64, 64)), syntax=syntax)
    read_scan(tmp_path / "few")  # libraries load outside the measurement
    make_series(tmp_path / "many", ct((160, 192, 192)), syntax=syntax)
    tracemalloc.start()
    scan = read_scan(tmp_path / "many")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= 1.2 * scan.voxels.nbytes, peak / scan.voxels.nbytes


def test_missing_modality_with_ct_values_is_a_note(tmp_path, make_series):
    make_series(tmp_path, drop=["Modality"])
    assert "does not say that it is CT (no Modality)" in read_scan(tmp_path).notes[0]
    make_series(tmp_path / "other", drop=["Modality", "SOPClassUID"])
    assert "does not say that it is CT (no Modality)" in read_scan(tmp_path / "other").notes[0]


def test_a_single_slice(tmp_path, make_slice):
    scan = read_scan(make_slice(tmp_path / "IM1"))
    assert scan.voxels.shape == (1, 12, 10)
    assert scan.spacing == pytest.approx((9.0, 0.8, 0.7))
    scan = read_scan(make_slice(tmp_path / "IM2", drop=["SliceThickness"]))
    assert scan.spacing is None
    assert "does not say how thick" in scan.notes[0]


SECONDARY = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7", "Modality": "CT"}
MR = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4", "Modality": "MR"}
RAMP = np.arange(120, dtype=np.int16).reshape(12, 10)
# What is changed in a slice, what is left out, and the sentence that answers.
REFUSED_SLICES = {
    "mr": (MR, (), r"not a CT scan: its series thorax is MR, not CT; choose a CT series"),
    "capture": (SECONDARY, (), r"thorax is a secondary capture \(a picture of a screen\); choose a CT"),
    "colour": (
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
        (),
        r"x\.dcm is a true colour image, not CT values; choose the original",
    ),
    "frames": ({"NumberOfFrames": 7}, (), r"x\.dcm holds 7 frames in one file \(4-D or enhanced DICOM\)"),
    "spacing": ({"PixelSpacing": [0, 0]}, (), r"x\.dcm has a zero or missing pixel spacing"),
    "no spacing": ({}, ["PixelSpacing"], r"x\.dcm has a zero or missing pixel spacing"),
    "no position": ({}, ["ImagePositionPatient"], r"x\.dcm does not say where its slice lies"),
    "orientation": (
        {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]},
        (),
        r"x\.dcm has an image orientation that is not two directions at right angles",
    ),
    "far away": ({"position": (0, 0, 1e9)}, (), "impossible position"),
    "syntax": (
        {"syntax": "1.2.840.10008.1.2.4.201"},
        (),
        r"x\.dcm is compressed .* \(transfer syntax 1\.2\.840\.10008\.1\.2\.4\.201\); export it uncompressed",
    ),
    "short": ({"PixelData": b"\0" * 100}, (), r"x\.dcm is truncated or damaged .* copy it again"),
    "no pixels": ({}, ["PixelData"], r"x\.dcm is truncated or damaged"),
    "no rows": ({}, ["Rows"], r"x\.dcm is truncated or damaged"),
    "constant": ({"values": RAMP * 0}, (), r"x\.dcm holds the value 0 everywhere"),
    "not like CT": ({"values": RAMP}, ["Modality"], r"x\.dcm .*no Modality\) and its values are not HU"),
    "report": (
        {"Modality": "SR", "SOPClassUID": "1.2.3"},
        ["Rows", "PixelData"],
        r"x\.dcm is a DICOM file without an image \(SR\); choose a CT slice",
    ),
}


@pytest.mark.parametrize("case", REFUSED_SLICES)
@pytest.mark.filterwarnings("ignore")
def test_refused_slice(tmp_path, make_slice, case):
    tags, drop, sentence = REFUSED_SLICES[case]
    path = make_slice(tmp_path / "x.dcm", drop=drop, **tags)
    with pytest.raises(ScanError, match=sentence) as caught:
        read_scan(path)
    assert re.search(r"; (choose|copy|export|remove) ", str(caught.value)), "says what to do"
    if case not in ("report", "no rows"):
        with pytest.raises(ScanError):
            read_scan(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, JPEGLosslessSV1])
def test_truncated_file(tmp_path, make_series, part, syntax):
    make_series(tmp_path, syntax=syntax)
    path = tmp_path / "IM0003.dcm"
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    for asked in (tmp_path, path):
        with pytest.raises(ScanError, match=r"IM0003\.dcm .*truncated.* copy it again"):
            read_scan(asked)


def test_mixed_sizes(tmp_path, make_series, make_slice, ct):
    make_series(tmp_path)
    make_slice(tmp_path / "odd.dcm", ct((14, 10)), position=(-30, -20, -90))
    with pytest.raises(
        ScanError, match=r"mixes image sizes \(10 x 12 in IM0000.dcm and 10 x 14 in odd.dcm\); remove"
    ):
        read_scan(tmp_path)


def test_mixed_pixel_spacings(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(tmp_path / "odd.dcm", position=(-30, -20, -90), PixelSpacing=[0.9, 0.9])
    with pytest.raises(ScanError, match=r"mixes pixel spacings \(IM0000.dcm and odd.dcm differ\); remove"):
        read_scan(tmp_path)


def test_not_parallel(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(tmp_path / "odd.dcm", position=(-30, -20, -90), ImageOrientationPatient=[1, 0, 0, 0, 0, -1])
    with pytest.raises(ScanError, match=r"not parallel \(IM0000.dcm and odd.dcm differ\); choose"):
        read_scan(tmp_path)


def test_a_slice_beside_the_others(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(tmp_path / "odd.dcm", position=(-10, -20, -90))
    with pytest.raises(ScanError, match=r"lies .* mm beside the line of the other slices; choose"):
        read_scan(tmp_path)


def test_duplicate_positions(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(tmp_path / "twice.dcm", position=(-30, -20, -96))
    with pytest.raises(
        ScanError, match=r"IM0002.dcm and twice.dcm lie at the same position \(-96.00 mm\).*keep one"
    ):
        read_scan(tmp_path)


def test_a_gap(tmp_path, make_series):
    make_series(tmp_path)
    (tmp_path / "IM0002.dcm").unlink()
    with pytest.raises(
        ScanError, match=r"gap: IM0001.dcm and IM0003.dcm lie 4.00 mm apart .* 2.00 mm apart; add the"
    ):
        read_scan(tmp_path)


def test_list_series_of_no_folder(tmp_path):
    with pytest.raises(ScanError, match="is not a folder; choose the folder"):
        list_series(tmp_path / "nowhere")
