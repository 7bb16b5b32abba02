"""Decode the compressed pixels of one DICOM slice with the GDCM inside SimpleITK.

GDCM never sees the file itself: it allocates gigabytes on a damaged length. The stream is taken
out, its own header is compared with DICOM's, and it is handed over in a small clean file.
"""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from napari_covseg.scans.dicom.header import SliceHeader, damaged

JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
"""JPEG, JPEG-Lossless and JPEG-LS."""

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RUN_LENGTH = "1.2.840.10008.1.2.5"
COMPRESSED = (*JPEG, *JPEG_2000, RUN_LENGTH)

MOST_TILES = 1024


def decode_stored(header: SliceHeader, pixel_data: bytes) -> npt.NDArray[Any]:
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
