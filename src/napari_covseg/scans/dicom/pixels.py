"""Decode the pixels of one DICOM slice into HU.

Compressed ones are decoded by the GDCM inside SimpleITK, which never sees the file itself: it
allocates gigabytes on a damaged length. The stream is taken out, its own header is compared with
DICOM's, and it is handed over in a small clean file.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.errors import ScanError
from napari_covseg.scans.dicom.header import SliceHeader, damaged, parse

DEFLATED = "1.2.840.10008.1.2.1.99"
BIG_ENDIAN = "1.2.840.10008.1.2.2"
UNCOMPRESSED = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", DEFLATED, BIG_ENDIAN)

JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
"""JPEG, JPEG-Lossless and JPEG-LS."""

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RUN_LENGTH = "1.2.840.10008.1.2.5"
COMPRESSED = (*JPEG, *JPEG_2000, RUN_LENGTH)

MOST_TILES = 1024


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
    return _rescale(header, _decode_stream(header, data))


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


def _decode_stream(header: SliceHeader, pixel_data: bytes) -> npt.NDArray[Any]:
    """Return the stored values, shape (rows, columns), of an encapsulated PixelData element.

    Raises
    ------
    ScanError
        If the stream is truncated, damaged or of another size than the header says.
    """
    import SimpleITK as sitk  # here, because it takes long to load and many scans do not need it
    from pydicom.encaps import generate_frames

    try:
        stream = next(generate_frames(pixel_data, number_of_frames=1))
    except Exception as error:  # pydicom meets damaged items with any kind of exception
        raise damaged(header.path) from error
    if _size_in(header.transfer_syntax, stream) not in (None, (header.rows, header.columns)):
        raise damaged(header.path)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # damage is said by exceptions, not on the terminal
    handle, name = tempfile.mkstemp(suffix=".dcm")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_clean_file(header, stream))
        # The interpreter's lock is released while this decodes, so threads help.
        values = sitk.GetArrayFromImage(sitk.ReadImage(name, imageIO="GDCMImageIO"))
    except RuntimeError as error:
        raise damaged(header.path) from error
    finally:
        Path(name).unlink()
    if values.size != header.rows * header.columns or values.shape[-2:] != (header.rows, header.columns):
        raise damaged(header.path)
    plane: npt.NDArray[Any] = np.reshape(values, (header.rows, header.columns))
    return plane


def _clean_file(header: SliceHeader, stream: bytes) -> bytes:
    """Write the least DICOM file around a stream: no name, no identifier, no rescaling."""

    def element(group: int, number: int, kind: bytes, value: bytes) -> bytes:
        value += (b"\0" if kind == b"UI" else b" ") * (len(value) % 2)
        return struct.pack("<HH2sH", group, number, kind, len(value)) + value

    def short(number: int, value: int) -> bytes:
        return element(0x0028, number, b"US", struct.pack("<H", value))

    sop_class = b"1.2.840.10008.5.1.4.1.1.2"
    meta = (
        struct.pack("<HH2sxxI", 0x0002, 0x0001, b"OB", 2)
        + b"\0\1"
        + element(0x0002, 0x0002, b"UI", sop_class)
        + element(0x0002, 0x0003, b"UI", b"1.2")
        + element(0x0002, 0x0010, b"UI", header.transfer_syntax.encode("ascii"))
    )
    stream += b"\0" * (len(stream) % 2)
    return (
        bytes(128)
        + b"DICM"
        + element(0x0002, 0x0000, b"UL", struct.pack("<I", len(meta)))
        + meta
        + element(0x0008, 0x0016, b"UI", sop_class)
        + element(0x0008, 0x0018, b"UI", b"1.2")
        + element(0x0008, 0x0060, b"CS", b"CT")
        + short(0x0002, 1)
        + element(0x0028, 0x0004, b"CS", b"MONOCHROME2")
        + short(0x0010, header.rows)
        + short(0x0011, header.columns)
        + short(0x0100, header.bits_allocated)
        + short(0x0101, header.bits_stored)
        + short(0x0102, header.bits_stored - 1)
        + short(0x0103, int(header.signed))
        + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OB", 0xFFFFFFFF)
        + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
        + struct.pack("<HHI", 0xFFFE, 0xE000, len(stream))
        + stream
        + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    )


def _size_in(syntax: str, stream: bytes) -> tuple[int, int] | None:
    """Rows and columns that the stream itself declares; (0, 0) if it makes no sense, None if it has none."""
    if syntax == RUN_LENGTH:
        return None
    return _jpeg2000_size(stream) if syntax in JPEG_2000 else _jpeg_size(stream)


def _jpeg2000_size(stream: bytes) -> tuple[int, int]:
    at = stream.find(b"\xff\x4f\xff\x51")
    if at < 0 or len(stream) < at + 42:
        return 0, 0
    columns, rows, left, top, tile_columns, tile_rows, _, _, channels = struct.unpack(
        ">8IH", stream[at + 8 : at + 42]
    )
    columns, rows = columns - left, rows - top
    if channels != 1 or not tile_columns or not tile_rows:
        return 0, 0
    # A decoder loses seconds on thousands of tiles, which only a damaged header asks for.
    if -(-columns // tile_columns) * -(-rows // tile_rows) > MOST_TILES:
        return 0, 0
    return rows, columns


def _jpeg_size(stream: bytes) -> tuple[int, int]:
    at = stream.find(b"\xff\xd8")
    if at < 0 or stream.rfind(b"\xff\xd9") < at:
        return 0, 0  # begins or ends elsewhere
    at += 2
    while at < len(stream) - 9 and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in (0xC0, 0xC1, 0xC2, 0xC3, 0xF7):
            return struct.unpack(">HH", stream[at + 5 : at + 9])
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0, 0
