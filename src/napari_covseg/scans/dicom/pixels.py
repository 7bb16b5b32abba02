"""Decode the pixels of one DICOM slice into HU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.codec import COMPRESSED, decode_stored
from napari_covseg.scans.dicom.header import SliceHeader, damaged, parse

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)


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
        syntax = ascii(header.transfer_syntax)[1:-1] or "none given"
        raise ScanError(
            f"{name} is compressed in a way that cannot be read (transfer syntax {syntax}); export it "
            "uncompressed or as JPEG-Lossless."
        )
    if header.bits_allocated not in (8, 16, 32) or not 0 < header.bits_stored <= header.bits_allocated:
        raise damaged(header.path)
    if not 0 < abs(header.slope) < 1e6 or not abs(header.intercept) < 1e6:
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
    data = _pixel_data(header)
    if header.transfer_syntax in UNCOMPRESSED:
        return _rescale(header, _unpack(header, data))
    return _rescale(header, decode_stored(header, data))


def _pixel_data(header: SliceHeader) -> bytes:
    try:
        data = parse(header.path, pixels=True).PixelData
    except ScanError:
        raise
    except Exception as error:  # missing, or of a kind that a damaged file made up
        raise damaged(header.path) from error
    if not isinstance(data, bytes):
        raise damaged(header.path)
    return data


def _unpack(header: SliceHeader, data: bytes) -> npt.NDArray[Any]:
    order = ">" if header.transfer_syntax == BIG_ENDIAN else "<"
    dtype = np.dtype(f"{order}{'i' if header.signed else 'u'}{header.bits_allocated // 8}")
    count = header.rows * header.columns
    if len(data) < count * dtype.itemsize:
        raise damaged(header.path)
    return np.frombuffer(data, dtype, count).reshape(header.rows, header.columns)


def _rescale(header: SliceHeader, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if (header.slope, header.intercept) == (1.0, 0.0):
        values = stored
    elif header.slope == 1.0 and header.intercept.is_integer():
        values = stored.astype(np.int64 if stored.itemsize > 2 else np.int32) + int(header.intercept)
    else:
        values = stored * header.slope + header.intercept
    if stored.dtype.kind == "u" and header.bits_stored < header.bits_allocated:
        # Outside the declared bits lies padding, such as -2000 written into an unsigned field.
        values = np.where(stored >> header.bits_stored, np.iinfo(np.int16).min, values)
    return values
