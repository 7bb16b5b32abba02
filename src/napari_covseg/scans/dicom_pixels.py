"""Decode the pixels of one DICOM slice into HU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom_header import SliceHeader, damaged, parse

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)
JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70))
COMPRESSED = (*JPEG, *(f"1.2.840.10008.1.2.4.{number}" for number in (80, 81, 90, 91)), "1.2.840.10008.1.2.5")
"""What the GDCM inside SimpleITK decodes: JPEG, JPEG-LS, JPEG 2000, RLE."""


def check_pixels(header: SliceHeader) -> None:
    """Refuse a slice whose pixels cannot be CT values or cannot be decoded.

    Raises
    ------
    ScanError
        True colour, several frames, odd sample sizes, an unreadable transfer syntax, or more
        pixels than the file can hold.
    """
    name = header.path.name
    if header.samples != 1 or header.photometric.startswith(("RGB", "YBR", "PALETTE")):
        raise ScanError(f"{name} is a true colour image, not CT values; choose the original CT series.")
    if header.frames != 1:
        raise ScanError(
            f"{name} holds {header.frames} frames in one file (4-D or enhanced DICOM), which is not "
            "supported; export it as one file per slice."
        )
    if header.transfer_syntax not in UNCOMPRESSED + COMPRESSED:
        syntax = header.transfer_syntax or "none given"
        raise ScanError(
            f"{name} is compressed in a way that cannot be read (transfer syntax {syntax}); export it "
            "uncompressed or as JPEG-Lossless."
        )
    if header.bits_allocated not in (8, 16, 32) or not 0 < header.bits_stored <= header.bits_allocated:
        raise damaged(header.path)
    if not np.isfinite([header.slope, header.intercept]).all() or header.slope == 0:
        raise damaged(header.path)
    ratio = 1 if header.transfer_syntax in UNCOMPRESSED and header.transfer_syntax != DEFLATED else 1100
    needed = header.rows * header.columns * header.bits_allocated // 8
    if needed > header.path.stat().st_size * ratio:
        raise damaged(header.path)


def decode(header: SliceHeader) -> npt.NDArray[Any]:
    """Return the slice in HU (rescaled, not yet clipped), shape (rows, columns), integer or float.

    Raises
    ------
    ScanError
        If the pixels are truncated, damaged or cannot be decoded.
    """
    check_pixels(header)
    return _decode_raw(header) if header.transfer_syntax in UNCOMPRESSED else _decode_compressed(header)


def _decode_raw(header: SliceHeader) -> npt.NDArray[Any]:
    data = _pixel_data(header)
    order = ">" if header.transfer_syntax == BIG_ENDIAN else "<"
    dtype = np.dtype(f"{order}{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    count = header.rows * header.columns
    if len(data) < count * dtype.itemsize:
        raise damaged(header.path)
    stored = np.frombuffer(data, dtype, count).reshape(header.rows, header.columns)
    if (header.slope, header.intercept) == (1.0, 0.0):
        values: npt.NDArray[Any] = stored
    elif header.slope == 1.0 and header.intercept.is_integer():
        values = stored.astype(np.int64) + int(header.intercept)
    else:
        values = stored * header.slope + header.intercept
    if not header.signed and header.bits_stored < header.bits_allocated:
        # Outside the declared bits lies padding, such as -2000 written into an unsigned field.
        values = np.where(stored >> header.bits_stored, np.iinfo(np.int16).min, values)
    return values


def _pixel_data(header: SliceHeader) -> bytes:
    try:
        data = parse(header.path, pixels=True).PixelData
    except AttributeError as error:
        raise damaged(header.path) from error
    if not isinstance(data, bytes):
        raise damaged(header.path)
    return data


def _decode_compressed(header: SliceHeader) -> npt.NDArray[Any]:
    import SimpleITK as sitk  # here, because it takes long to load and many scans do not need it

    _check_stream(header, _pixel_data(header))
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # damage is said by exceptions, not on the terminal
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(header.path))
    try:
        # The interpreter's lock is released while this decodes, so threads help.
        values = sitk.GetArrayFromImage(reader.Execute())
    except RuntimeError as error:
        raise damaged(header.path) from error
    values = values.reshape(values.shape[-2:]) if values.size == header.rows * header.columns else values
    if values.shape != (header.rows, header.columns):
        raise damaged(header.path)
    return values


def _check_stream(header: SliceHeader, data: bytes) -> None:
    """Compare the codec's own header with DICOM's before C++ code allocates by it."""
    expected = (header.rows, header.columns)
    kind = header.transfer_syntax
    if kind.endswith((".4.90", ".4.91")):
        at = data.find(b"\xff\x4f\xff\x51")
        size = data[at + 8 : at + 16]
        found = (int.from_bytes(size[4:8], "big"), int.from_bytes(size[0:4], "big")) if at >= 0 else None
    elif kind.endswith(".1.2.5"):
        return  # run lengths carry no size of their own
    else:
        found = _jpeg_size(data)
    if found != expected:
        raise damaged(header.path)


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """Rows and columns from the frame header of the first JPEG stream in `data`; None if it is not whole."""
    at = data.find(b"\xff\xd8")
    if at < 0 or data.rfind(b"\xff\xd9") < at:
        return None
    at += 2
    while 0 <= at < len(data) - 9 and data[at] == 0xFF:
        marker = data[at + 1]
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
            return int.from_bytes(data[at + 5 : at + 7], "big"), int.from_bytes(data[at + 7 : at + 9], "big")
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None
