"""Stored values to HU: bits, signs, overlays, padding; compared with pydicom and SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian

from napari_covseg.errors import ScanError
from napari_covseg.scans import list_series, read_scan


def words(values: np.ndarray, stored: int, high: int) -> np.ndarray:
    """Put values into 16-bit words, their highest bit at `high`."""
    return ((values.astype(np.int64) & ((1 << stored) - 1)) << (high + 1 - stored)).astype(np.uint16)


def bits(stored: int, high: int, signed: bool) -> dict[str, int]:
    tags = {"BitsStored": stored, "HighBit": high, "PixelRepresentation": int(signed)}
    return tags | {"RescaleIntercept": 0 if signed else -1024}


def by_pydicom(path: Path) -> np.ndarray:
    dataset = pydicom.dcmread(path)
    return dataset.pixel_array.astype(int) * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)


def by_simpleitk(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))[0]


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    "stored, high", [(12, 11), (13, 12), (14, 13), (15, 14), (12, 15), (12, 13), (13, 14)]
)
def test_the_bits_of_overlays_are_not_values(tmp_path, make_slice, ct, stored, high, signed):
    values = ct((12, 10))
    raw = words(values if signed else values + 1024, stored, high)
    first, used = high + 1 - stored, range(high + 1 - stored, high + 1)
    for bit in set(range(16)) - set(used):
        overlaid = raw.copy()
        overlaid[3:7, 2:5] |= 1 << bit
        overlaid[5] &= ~np.uint16(1 << bit)
        path = make_slice(
            tmp_path / "x.dcm", values, PixelData=overlaid.tobytes(), **bits(stored, high, signed)
        )
        np.testing.assert_array_equal(read_scan(path).voxels[0], values)
        if not first:
            np.testing.assert_array_equal(by_simpleitk(path), values)


@pytest.mark.parametrize("declared", [False, True])
def test_all_spare_bits_may_be_overlays(tmp_path, make_slice, ct, declared):
    values = ct((12, 10))
    raw = words(values + 1024, 12, 11)
    raw[2:5] |= 0xF000
    raw[2:5] &= 0xF7FF  # below 2048: HU of a body
    values[2:5] = (raw[2:5] & 0xFFF).astype(np.int16) - 1024
    path = make_slice(tmp_path / "x.dcm", values, PixelData=raw.tobytes(), **bits(12, 11, False))
    dataset = pydicom.dcmread(path)
    for bit in range(12, 16 if declared else 12):
        dataset.add_new((0x6000 + 2 * (bit - 12), 0x0102), "US", bit)
    dataset.save_as(path)
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)


@pytest.mark.parametrize("signed", [False, True])
def test_one_negative_number_over_all_bits_is_padding(tmp_path, make_slice, ct, signed):
    values = ct((12, 10))
    raw = words(values if signed else values + 1024, 12, 11)
    raw[2, :5] = 0x10000 - 3024  # beyond 12 bits
    path = make_slice(tmp_path / "x.dcm", values, PixelData=raw.tobytes(), **bits(12, 11, signed))
    values[2, :5] = -1024
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)


@pytest.mark.parametrize("stored", [12, 13, 14, 16])
@pytest.mark.parametrize("extended", [False, True])
def test_the_sign_is_at_the_high_bit(tmp_path, make_slice, ct, stored, extended):
    values = ct((12, 10))
    raw = values.astype(np.uint16) if extended else words(values, stored, stored - 1)
    path = make_slice(tmp_path / "x.dcm", values, PixelData=raw.tobytes(), **bits(stored, stored - 1, True))
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)
    np.testing.assert_array_equal(by_pydicom(path), values)
    np.testing.assert_array_equal(by_simpleitk(path), values)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_signs_in_other_byte_orders(tmp_path, make_slice, ct, syntax):
    values = ct((12, 10))
    order = ">u2" if syntax == ExplicitVRBigEndian else "<u2"
    data = words(values, 12, 11).astype(order).tobytes()
    path = make_slice(tmp_path / "x.dcm", values, syntax=syntax, PixelData=data, **bits(12, 11, True))
    np.testing.assert_array_equal(read_scan(path).voxels[0], values)


@pytest.mark.parametrize("allocated", [8, 32])
def test_other_widths(tmp_path, make_slice, allocated):
    stored = np.random.default_rng(0).integers(0, 250, (12, 10)).astype(f"u{allocated // 8}")
    tags = {"BitsAllocated": allocated, "BitsStored": allocated, "HighBit": allocated - 1, "RescaleSlope": 8}
    path = make_slice(tmp_path / "x.dcm", PixelData=stored.tobytes(), PixelRepresentation=0, **tags)
    np.testing.assert_array_equal(read_scan(path).voxels[0], by_pydicom(path))


@pytest.mark.parametrize(
    "signed, stored, padding, limit, raw",
    [
        (True, 16, -2000, None, [-2000]),
        (True, 16, 32767, None, [32767]),
        (True, 16, -32768, None, [-32768]),
        (True, 16, -2000, -1500, [-2000, -1700, -1500]),
        (True, 16, 3000, 2500, [2500, 3000, 2700]),
        (True, 16, 32767, 30000, [30001, 32767]),
        (True, 12, 2047, None, [2047]),
        (False, 16, 63536, None, [63536]),
        (False, 16, 65535, None, [65535]),
        (False, 16, 65535, 4090, [4090, 5000, 65535]),
        (False, 12, 63536, None, [63536]),
        (False, 12, 32767, None, [32767]),
        (False, 12, 4095, None, [4095]),
    ],
)
@pytest.mark.parametrize("written_as", ["as the pixels", "the other"])
def test_padding_becomes_air(tmp_path, make_slice, ct, signed, stored, padding, limit, raw, written_as):
    values = ct((12, 10))
    data = (values if signed else values + 1024).astype(np.int64)
    data[3, : len(raw)] = raw
    path = make_slice(
        tmp_path / "x.dcm",
        values,
        PixelData=data.astype(np.uint16).tobytes(),
        **bits(stored, stored - 1, signed),
    )
    dataset = pydicom.dcmread(path)
    for tag, value in ((0x00280120, padding), (0x00280121, limit)):
        if value is not None:
            kind = "SS" if signed == (written_as == "as the pixels") else "US"
            unsigned = value % 65536
            dataset.add_new(tag, kind, unsigned if kind == "US" else (unsigned ^ 0x8000) - 0x8000)
    dataset.save_as(path)
    values[3, : len(raw)] = -1024
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels[0], values)
    # Where a value of the body may be padding it is said.
    may_be_tissue = padding in (2047, 3000, 4095) or limit == 4090
    assert any("PixelPaddingValue" in note for note in scan.notes) == may_be_tissue


def chest(shape: tuple[int, int] = (32, 32)) -> np.ndarray:
    """HU of air, a body and two lungs."""
    values = np.random.default_rng(0).integers(-1010, -980, shape, dtype=np.int16)
    values[4:28, 3:29] += 1040
    values[8:24, 6:13] -= 890
    values[8:24, 19:26] -= 890
    return values


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("stored", [12, 16])
@pytest.mark.parametrize("turned", [False, True])
def test_white_at_zero(tmp_path, make_slice, signed, stored, turned):
    values = chest()
    raw = values.astype(np.int64) + (0 if signed else 1024)
    if turned:
        raw = (-1 if signed else (1 << stored) - 1) - raw
    path = make_slice(
        tmp_path / "x.dcm",
        values,
        PixelData=words(raw, stored, stored - 1).tobytes(),
        PhotometricInterpretation="MONOCHROME1",
        **bits(stored, stored - 1, signed),
    )
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels[0], values)
    assert any("white as zero" in note for note in scan.notes) == turned


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("syntax", [None, pydicom.uid.RLELossless])
@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [3, 0, 5, 1, 4, 2]])
def test_enhanced_ct(tmp_path, make_enhanced, ct, order, syntax, shared):
    volume = ct((6, 12, 10))
    path = make_enhanced(tmp_path / "e.dcm", volume[order], order, syntax=syntax, shared=shared)
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels, volume)
    assert scan.spacing == pytest.approx((2.0, 0.8, 0.7)) and scan.sop_uids == (scan.sop_uids[0],) * 6
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volume)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ScanError, match=r"e.dcm is truncated or damaged"):
        read_scan(path)


def test_enhanced_ct_with_a_rescale_for_each_frame(tmp_path, make_enhanced):
    volume = np.random.default_rng(0).integers(-250, 250, (6, 12, 10)) * 4
    path = make_enhanced(tmp_path / "e.dcm", volume, list(range(6)), slopes=[1, 2, 4, 1, 2, 0.5])
    np.testing.assert_array_equal(read_scan(path).voxels, volume)


@pytest.mark.parametrize("second", [0, 3, 8, 50])
def test_enhanced_ct_with_two_stacks(tmp_path, make_enhanced, ct, second):
    volume = ct((12, 12, 10))
    path = make_enhanced(
        tmp_path / "e.dcm", volume, [*range(6), *range(second, second + 6)], stacks=["1"] * 6 + ["2"] * 6
    )
    found = list_series(tmp_path)
    assert [(info.slices, info.description) for info in found] == [
        (6, "thorax (stack 1)"),
        (6, "thorax (stack 2)"),
    ]
    for n, info in enumerate(found):
        np.testing.assert_array_equal(read_scan(tmp_path, series=info.uid).voxels, volume[6 * n : 6 * n + 6])
    np.testing.assert_array_equal(read_scan(path).voxels, volume[:6])


def test_elements_that_are_stepped_over(tmp_path, make_slice, ct):
    values = ct((12, 10))
    path = make_slice(tmp_path / "x.dcm", values)
    dataset = pydicom.dcmread(path)
    inner = pydicom.Dataset()
    inner.Rows = 77  # not those of the slice
    inner.PixelData = bytes(8)
    inner["PixelData"].VR = "OW"
    inner.is_undefined_length_sequence_item = True
    dataset.IconImageSequence = [inner]
    dataset.ReferencedImageSequence = [pydicom.Dataset(), inner]
    for name in ("IconImageSequence", "ReferencedImageSequence"):
        dataset[name].is_undefined_length = True
    dataset.add_new(0x00091010, "UN", b"\xfe\xff\x00\xe0 not an item")
    dataset.add_new(0x00091011, "OB", bytes(40_000))
    for implicit in (False, True):
        dataset.file_meta.TransferSyntaxUID = (
            ImplicitVRLittleEndian if implicit else pydicom.uid.ExplicitVRLittleEndian
        )
        pydicom.dcmwrite(path, dataset, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
        np.testing.assert_array_equal(read_scan(path).voxels[0], values)


def test_frames_at_the_same_places_one_after_the_other(tmp_path, make_enhanced, ct):
    volume = ct((12, 12, 10))
    path = make_enhanced(tmp_path / "e.dcm", volume, [*range(6), *range(6)])
    scan = read_scan(path)
    np.testing.assert_array_equal(scan.voxels, volume[:6])
    np.testing.assert_array_equal(read_scan(path, series=f"{scan.series[:-1]}2").voxels, volume[6:])


def test_a_slice_that_lacks_its_rescaling_is_no_hu(tmp_path, make_series, make_slice):
    make_series(tmp_path)
    make_slice(tmp_path / "IM0002.dcm", position=(-30, -20, -96), drop=["RescaleSlope", "RescaleIntercept"])
    with pytest.raises(ScanError, match=r"IM0000.dcm says how to rescale it and IM0002.dcm does not"):
        read_scan(tmp_path)
