"""One slice is one chunk is one file: read and written at the speed of a file copy.

zarr-python goes through an event loop and a thread for each chunk, which costs more than
the chunk itself. In a local folder the same bytes are therefore read and written here;
anywhere else, or for an array that another tool has recompressed, zarr does it.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import google_crc32c
import numcodecs  # type: ignore[import-untyped]
import numpy as np
import numpy.typing as npt
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec
from zarr.core.sync import sync
from zarr.storage import LocalStore

# measured on 512 x 512 HU: zstd needs three times as long for a quarter less
_BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.BITSHUFFLE)
CHECKSUM_BYTES = 4

PATIENCE = 20 if sys.platform == "win32" else 0

Index = tuple[int, ...]
T = TypeVar("T")


def compressors() -> list[Any]:
    """Return the codecs of all arrays: fast compression, then a CRC-32C that shows damage."""
    return [BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"), Crc32cCodec()]


def read_chunk(array: zarr.Array[Any], index: Index) -> npt.NDArray[Any] | None:
    """Return the chunk at `index` of the chunk grid, or None if it was never written.

    Raises
    ------
    OSError, ValueError, RuntimeError
        If it cannot be read, or does not fit its checksum, or its size is wrong.
    """
    path = _local_path(array, index)
    if path is None:
        if not sync(array.store.exists(f"{array.path}/{array.metadata.encode_chunk_key(index)}")):
            return None
        return np.asarray(array.get_block_selection(index))
    try:
        data = _patiently(path.read_bytes)
    except FileNotFoundError:
        _check_folder(array)
        return None
    body, checksum = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if google_crc32c.value(body) != int.from_bytes(checksum, "little"):
        raise ValueError(f"{path} does not fit its checksum")
    values = np.frombuffer(_BLOSC.decode(body), array.dtype.newbyteorder("<"))
    return values.reshape(array.chunks).astype(array.dtype)


def write_chunk(array: zarr.Array[Any], index: Index, values: npt.NDArray[Any]) -> None:
    """Write the chunk at `index` of the chunk grid: after a crash it is the old or the new one.

    Raises
    ------
    OSError
        If the disk is full, the folder is read-only or gone.
    ValueError
        If `values` have not the shape of a chunk.
    """
    if values.shape != array.chunks:
        raise ValueError(f"a chunk of {array.path} has shape {array.chunks}, not {values.shape}")
    path = _local_path(array, index)
    if path is None:
        array.set_block_selection(index, values)
        return
    body = _BLOSC.encode(np.ascontiguousarray(values, array.dtype.newbyteorder("<")))
    # the array has one writer; the name is always the same, so that crashes leave one file at most
    partial = path.with_name(f"{path.name}.partial")
    try:
        file = partial.open("wb")
    except FileNotFoundError:
        _check_folder(array)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = partial.open("wb")
    with file:
        file.write(body)
        file.write(google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little"))
    _patiently(lambda: os.replace(partial, path))


def _patiently(action: Callable[[], T]) -> T:
    """Try again on Windows, where a file cannot be replaced in the moment it is read."""
    for _ in range(PATIENCE):
        try:
            return action()
        except PermissionError:
            time.sleep(0.005)
    return action()


def _local_path(array: zarr.Array[Any], index: Index) -> Path | None:
    """Return the chunk's file, or None if zarr has to read and write it."""
    if not isinstance(array.store, LocalStore):
        return None
    codecs = array.metadata.codecs  # type: ignore[union-attr]
    if tuple(map(type, codecs)) != (BytesCodec, BloscCodec, Crc32cCodec):
        return None
    if codecs[0] not in (BytesCodec(endian="little"), BytesCodec(endian=None)):
        return None
    return Path(array.store.root, array.path, array.metadata.encode_chunk_key(index))


def _check_folder(array: zarr.Array[Any]) -> None:
    """Tell a chunk that was never written from a folder that is gone, as an unplugged drive's."""
    assert isinstance(array.store, LocalStore)
    if not Path(array.store.root, array.path, "zarr.json").exists():
        raise FileNotFoundError(f"{array.path} is gone")
