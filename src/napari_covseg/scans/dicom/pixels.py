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
from napari_covseg.scans.dicom.elements import (
    BIG_ENDIAN,
    DEFLATED,
    MalformedError,
    fragments,
    inflated_pixels,
)
from napari_covseg.scans.dicom.header import UNCOMPRESSED, SliceHeader, damaged
from napari_covseg.scans.intensity import AIR

JPEG = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 57, 70, 80, 81))
"""JPEG, JPEG-Lossless and JPEG-LS."""

JPEG_2000 = ("1.2.840.10008.1.2.4.90", "1.2.840.10008.1.2.4.91")
RUN_LENGTH = "1.2.840.10008.1.2.5"
COMPRESSED = (*JPEG, *JPEG_2000, RUN_LENGTH)

MOST_TILES = 1024

LEAST_NOISE = -1024
"""Negative numbers from here on, written over all bits of an unsigned field, are air with its noise."""


def check_pixels(header: SliceHeader) -> None:
    """Refuse a slice whose pixels cannot be CT values or cannot be decoded.

    Raises
    ------
    ScanError
        True colour, frames without a place, odd sample sizes, an unreadable transfer syntax, or more
        pixels than the file can hold.
    """
    name = header.path.name
    if is_colour(header):
        what, original = ("grey values", "X-ray") if header.is_xray else ("CT values", "CT series")
        raise ScanError(f"{name} is a true colour image, not {what}; choose the original {original}.")
    if header.frames != 1 and header.position is None and not header.is_xray:
        raise ScanError(
            f"{name} holds {header.frames} frames in one file (4-D or enhanced DICOM) and does not say where "
            "each of them lies; export it as one file per slice."
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
    if _frame_size(header) > header.path.stat().st_size * ratio:
        raise damaged(header.path)


def is_colour(header: SliceHeader) -> bool:
    """Whether a slice is a picture in colours."""
    return header.samples != 1 or header.photometric.startswith(("RGB", "YBR", "PALETTE"))


def is_white_at_zero(header: SliceHeader) -> bool:
    """Whether the least stored value is to be shown white."""
    return header.photometric == "MONOCHROME1"


def decode(header: SliceHeader, *, inverted: bool = False) -> npt.NDArray[Any]:
    """Return the slice in HU (rescaled, not yet clipped), shape (rows, columns), integer or float.

    Padding becomes air. `inverted` turns the stored values round within their bits.

    Raises
    ------
    ScanError
        If the pixels are truncated, damaged or cannot be decoded.
    """
    stored, padding = stored_values(header)
    values = _rescale(header, _inverted(header, stored) if inverted else stored)
    return values if padding is None else np.where(padding, AIR, values)


def stored_values(header: SliceHeader) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_] | None]:
    """Return the values of a slice as they are stored, integers, and where they are padding, if it has any.

    Both of shape (rows, columns).

    Raises
    ------
    ScanError
        As `decode`.
    """
    check_pixels(header)
    compressed = header.transfer_syntax not in UNCOMPRESSED
    raw = _decode_stream(header, _stream(header)) if compressed else _unpack(header)
    stored = _stored(header, raw)
    if header.padding is None:
        return stored, None
    as_written = raw.view(f"i{raw.itemsize}") if header.signed else raw
    return stored, _between(stored, header.padding) | _between(as_written, header.padding)


def _between(values: npt.NDArray[Any], ends: tuple[int, int]) -> npt.NDArray[np.bool_]:
    # Read as unsigned or signed, a padding of -2000 may be out of the range of the other.
    return (values >= ends[0]) & (values <= ends[1])


def _frame_size(header: SliceHeader) -> int:
    """Bytes of one frame, decoded."""
    return header.rows * header.columns * header.bits_allocated // 8


def _unpack(header: SliceHeader) -> npt.NDArray[Any]:
    """Return the words of an uncompressed slice as they are stored, unsigned, shape (rows, columns)."""
    size = _frame_size(header)
    skip = header.frame * size
    if header.pixels_length < skip + size:
        raise damaged(header.path)
    with header.path.open("rb", buffering=0) as file:
        if header.transfer_syntax == DEFLATED:
            try:
                data = inflated_pixels(file, header.pixels_at + skip, size)
            except MalformedError as error:
                raise damaged(header.path) from error
        else:
            file.seek(header.pixels_at + skip)
            data = file.read(size)
    if len(data) < size:
        raise damaged(header.path)
    dtype = np.dtype(f"{'>' if header.transfer_syntax == BIG_ENDIAN else '<'}u{header.bits_allocated // 8}")
    words = np.frombuffer(data, dtype).reshape(header.rows, header.columns)
    return words.astype(dtype.newbyteorder("="), copy=False)


def _stored(header: SliceHeader, raw: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Take the stored values out of the words of a slice: the bits up to the high bit, with their sign.

    The other bits may hold overlays. Only where a negative number was written over all of them, such as
    a padding of -2000 in a field of 12 bits, it is kept.
    """
    width = 8 * raw.itemsize
    as_signed = raw.view(f"i{raw.itemsize}")
    if header.bits_stored == width:
        return as_signed if header.signed else raw
    shift = min(max(header.high_bit + 1 - header.bits_stored, 0), width - header.bits_stored)
    stored = (raw >> shift) & ((1 << header.bits_stored) - 1)
    if header.signed:
        spare = width - header.bits_stored
        stored = (stored << spare).view(as_signed.dtype) >> spare
    beyond = (as_signed >> header.bits_stored == -1) & (as_signed != stored)
    if shift or header.overlay_in_pixels or not beyond.any():
        return stored
    padding = beyond & (as_signed < LEAST_NOISE)
    if len(np.unique(as_signed[padding])) > 1:
        beyond &= ~padding  # padding is one value; these are under several overlays
    return np.where(beyond, as_signed, stored.astype(np.int64))


def _inverted(header: SliceHeader, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return (-1 if header.signed else (1 << header.bits_stored) - 1) - stored.astype(np.int64)


def _rescale(header: SliceHeader, stored: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if (header.slope, header.intercept) == (1.0, 0.0):
        return stored
    if header.slope == 1.0 and header.intercept.is_integer():
        offset = int(header.intercept)
        ends = (int(stored.min()) + offset, int(stored.max()) + offset, offset)
        small = all(-(1 << 15) <= end < 1 << 15 for end in ends)  # as nearly always: half of the memory
        return stored.astype(np.int16 if small else np.int64) + offset
    return stored * header.slope + header.intercept


def _stream(header: SliceHeader) -> bytes:
    """Return the compressed bytes of a slice."""
    with header.path.open("rb", buffering=0) as file:
        pieces = header.pieces
        if not pieces:
            try:
                pieces = fragments(file, header.pixels_at, header.path.stat().st_size, 1)[0]
            except (MalformedError, struct.error) as error:
                raise damaged(header.path) from error
        stream = b""
        for at, length in pieces:
            file.seek(at)
            stream += file.read(length)
    return stream


def _decode_stream(header: SliceHeader, stream: bytes) -> npt.NDArray[Any]:
    """Return the words, unsigned, shape (rows, columns), of a compressed slice.

    Raises
    ------
    ScanError
        If the stream is truncated, damaged or of another size than the header says.
    """
    import SimpleITK as sitk  # here, because it takes long to load and many scans do not need it

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
    return plane.astype(f"u{header.bits_allocated // 8}")


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
