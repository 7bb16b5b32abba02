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

# on a CT of 512 x 512, zstd takes three times as long and shuffling bits twice, for a tenth less
_BLOSC = numcodecs.Blosc(cname="lz4", clevel=5, shuffle=numcodecs.Blosc.SHUFFLE)
CHECKSUM_BYTES = 4
# one folder for all chunks of an array: folders within folders double the time of a first write
CHUNK_NAMES: Any = {"name": "default", "separator": "."}

PATIENCE = 20 if sys.platform == "win32" else 0

Index = tuple[int, ...]
T = TypeVar("T")


def compressors() -> list[Any]:
    """Return the codecs of all arrays: fast compression, then a CRC-32C that shows damage."""
    return [BloscCodec(cname="lz4", clevel=5, shuffle="shuffle"), Crc32cCodec()]


def checksum(values: npt.NDArray[Any]) -> int:
    """Return the CRC-32C of an array's bytes."""
    return int(google_crc32c.value(values.tobytes()))


def has_chunk(array: zarr.Array[Any], index: Index) -> bool:
    """Return whether the chunk at `index` of the chunk grid was ever written."""
    path = _local_path(array, index)
    if path is not None:
        return os.path.exists(path)
    return bool(sync(array.store.exists(f"{array.path}/{array.metadata.encode_chunk_key(index)}")))


def chunk_indices(array: zarr.Array[Any]) -> list[Index]:
    """Return which chunks were ever written, in any order; OSError if the array is gone."""
    if isinstance(array.store, LocalStore):
        names = os.listdir(Path(array.store.root, array.path))
        _check_folder(array)
    else:
        names = sync(_names(array))
    found = [name[2:].split(".") for name in names if name.startswith("c.")]
    return [tuple(map(int, parts)) for parts in found if all(part.isdecimal() for part in parts)]


async def _names(array: zarr.Array[Any]) -> list[str]:
    return [name async for name in array.store.list_dir(array.path)]


def remove_chunk(array: zarr.Array[Any], index: Index) -> None:
    """Remove a chunk of a local array; nothing if there is none."""
    path = _local_path(array, index)
    if path is not None:
        _patiently(lambda: Path(path).unlink(missing_ok=True))


def set_aside(array: zarr.Array[Any], index: Index) -> None:
    """Keep the bytes of a damaged chunk of a local array beside it, under a name that is free."""
    path = _local_path(array, index)
    if path is None or not os.path.exists(path):
        return
    kept, count = f"{path}.damaged", 1
    while os.path.exists(kept):
        kept, count = f"{path}.{count}.damaged", count + 1
    _patiently(lambda: os.rename(path, kept))


def to_disk(array: zarr.Array[Any], index: Index) -> None:
    """Wait until a chunk of a local array outlives a power failure."""
    path = _local_path(array, index)
    for name in (path, os.path.dirname(path)) if path is not None else ():
        if sys.platform == "win32" and name != path:
            continue  # a folder cannot be opened there
        file = os.open(name, os.O_RDWR if name == path else os.O_RDONLY)
        try:
            os.fsync(file)
        finally:
            os.close(file)


def read_chunk(array: zarr.Array[Any], index: Index) -> npt.NDArray[Any] | None:
    """Return the chunk at `index` of the chunk grid, or None if it was never written.

    Raises
    ------
    OSError, ValueError, RuntimeError
        If it cannot be read, or does not fit its checksum, or its size is wrong.
    """
    if _local_path(array, index) is None:
        if not has_chunk(array, index):
            return None
        return np.asarray(array.get_block_selection(index))
    data = read_bytes(array, index)
    if data is None:
        return None
    values = np.frombuffer(data, array.dtype.newbyteorder("<"))
    return values.reshape(array.chunks).astype(array.dtype)


def read_bytes(array: zarr.Array[Any], index: Index) -> bytes | None:
    """Return the values of a chunk as bytes, little endian, without a copy; as `read_chunk` else."""
    path = _local_path(array, index)
    if path is None:
        values = read_chunk(array, index)
        return None if values is None else values.tobytes()
    try:
        data = _patiently(lambda: _read_file(path))
    except FileNotFoundError:
        _check_folder(array)
        return None
    body, check = data[:-CHECKSUM_BYTES], data[-CHECKSUM_BYTES:]
    if google_crc32c.value(body) != int.from_bytes(check, "little"):
        raise ValueError(f"{path} does not fit its checksum")
    return bytes(_BLOSC.decode(body))


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
        # of a chunk that reaches beyond the array zarr takes what lies inside
        inside = (min(c, s - n * c) for n, c, s in zip(index, array.chunks, array.shape, strict=True))
        array.set_block_selection(index, values[tuple(map(slice, inside))])
        return
    body = _BLOSC.encode(np.ascontiguousarray(values, array.dtype.newbyteorder("<")))
    data = body + google_crc32c.value(body).to_bytes(CHECKSUM_BYTES, "little")
    # the array has one writer; the name is always the same, so that crashes leave one file at most
    partial = f"{path}.partial"
    try:
        _write_file(partial, data)
    except FileNotFoundError:
        _check_folder(array)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        _write_file(partial, data)
    _patiently(lambda: os.replace(partial, path))


def _read_file(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:
        return file.read()


def _write_file(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _patiently(action: Callable[[], T]) -> T:
    """Try again on Windows, where a file cannot be replaced in the moment it is read."""
    for _ in range(PATIENCE):
        try:
            return action()
        except PermissionError:
            time.sleep(0.005)
    return action()


def _local_path(array: zarr.Array[Any], index: Index) -> str | None:
    """Return the chunk's file, or None if zarr has to read and write it."""
    if not isinstance(array.store, LocalStore):
        return None
    codecs = array.metadata.codecs  # type: ignore[union-attr]
    if tuple(map(type, codecs)) != (BytesCodec, BloscCodec, Crc32cCodec):
        return None
    if codecs[0] not in (BytesCodec(endian="little"), BytesCodec(endian=None)):
        return None
    return f"{array.store.root}/{array.path}/{array.metadata.encode_chunk_key(index)}"


def _check_folder(array: zarr.Array[Any]) -> None:
    """Tell a chunk that was never written from a folder that is gone, as an unplugged drive's."""
    assert isinstance(array.store, LocalStore)
    if not Path(array.store.root, array.path, "zarr.json").exists():
        raise FileNotFoundError(f"{array.path} is gone")
