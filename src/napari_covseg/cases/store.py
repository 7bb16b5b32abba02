"""How arrays lie in the zarr store: one chunk per slice, format version, errors in words."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.core.sync import sync
from zarr.errors import BaseZarrError
from zarr.storage import FsspecStore, LocalStore

from napari_covseg.cases.chunks import (
    CHUNK_NAMES,
    chunk_indices,
    compressors,
    has_chunk,
    read_bytes,
    read_chunk,
    write_chunk,
)
from napari_covseg.errors import CaseError
from napari_covseg.files import write_text

FORMAT = 2
"""Version of the layout; a store with a higher one is refused."""
KEY = "covseg"
"""Attribute under which a group keeps what OME-Zarr has no place for."""

ROW_BYTES = 1 << 19
"""Size of a chunk of an array from `create_rows`, before it is compressed."""
_ROWS = 2**31 - 1  # that arrays of rows had at first, however few were written

UNREADABLE = (ValueError, RuntimeError, KeyError, TypeError, BaseZarrError)
"""What zarr and its codecs raise on bytes that they cannot make sense of."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FORBIDDEN = {errno.EACCES, errno.EPERM, errno.EROFS}


def where(group: zarr.Group | zarr.Array[Any]) -> str:
    """Return where a group or array lies, as a person would type it."""
    store = group.store
    if isinstance(store, LocalStore):
        return str(Path(store.root, group.path))
    if isinstance(store, FsspecStore):
        files = getattr(store.fs, "sync_fs", store.fs)  # zarr wraps those that are not asynchronous
        return str(files.unstrip_protocol(f"{store.path}/{group.path}".rstrip("/")))
    return f"{store}/{group.path}"


class DamagedError(CaseError):
    """Something of a case that is there but cannot be made sense of; the rest may be whole."""


@contextmanager
def reading(what: str, place: str | Path) -> Iterator[None]:
    """Turn what can go wrong while reading `what` at `place` into a CaseError."""
    try:
        yield
    except FileNotFoundError as error:
        raise CaseError(f"{what} of {place} is missing: restore it or import the scan again.") from error
    except OSError as error:
        if error.errno in _FORBIDDEN:
            text = f"{what} of {place} may not be read: ask for permission to that folder."
        else:
            reason = error.strerror or str(error)
            text = f"{what} of {place} cannot be read ({reason}): check the drive or the network."
        raise (DamagedError if error.errno == errno.EIO else CaseError)(text) from error
    except UNREADABLE as error:
        raise DamagedError(
            f"{what} of {place} is damaged: restore it from a backup or import the scan again."
        ) from error


@contextmanager
def writing(what: str, place: str | Path) -> Iterator[None]:
    """Turn what can go wrong while writing `what` at `place` into a CaseError."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            text = f"The disk is full, {what} of {place} is not saved: free some space and save again."
        elif error.errno in _FORBIDDEN:
            text = (
                f"{what} of {place} cannot be written because the folder is read-only: "
                "choose another workspace or open the case read-only."
            )
        else:
            reason = error.strerror or str(error)
            text = f"{what} of {place} is not saved ({reason}): check the drive and save again."
        raise CaseError(text) from error


def check_format(group: zarr.Group, kind: str) -> dict[str, Any]:
    """Return a group's own attributes after checking its kind and format version.

    Raises
    ------
    CaseError
        If the group is no `kind` ("workspace", "case", "run", "recognition") or is of a newer format.
    """
    own = group.attrs.get(KEY)
    if not isinstance(own, dict) or own.get("kind") != kind:
        raise CaseError(f"{where(group)} is no napari-covseg {kind}: choose another folder.")
    version = own.get("format")
    if not isinstance(version, int) or version > FORMAT:
        raise CaseError(
            f"{where(group)} was made by a newer napari-covseg (format {version}, this one "
            f"reads up to {FORMAT}): update napari-covseg to open it."
        )
    return own


def children(group: zarr.Group, name: str) -> list[str]:
    """Return the names of what lies in subgroup `name`, sorted, without opening any of it.

    zarr's own listing opens everything, so that one damaged member would hide the others.

    Raises
    ------
    CaseError
        If the subgroup cannot be listed.
    """

    async def names() -> list[str]:
        prefix = f"{group.path}/{name}".lstrip("/")
        return [key async for key in group.store.list_dir(prefix)]

    with reading(f'The list of "{name}"', where(group)):
        if name not in group:
            raise FileNotFoundError(name)
        found = sync(names())
    return sorted(key for key in found if key != "zarr.json" and not key.endswith(".partial"))


def create_slices(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    axes: tuple[str, ...] = ("z", "y", "x"),
) -> zarr.Array[Any]:
    """Create an array that is written and read one slice at a time.

    A chunk holds one z with all of the other axes, is never sharded, and carries a
    CRC-32C, so that a damaged one raises. Empty chunks are written too: a chunk that is
    missing was never written.
    """
    chunks = tuple(1 if axis == "z" else size for axis, size in zip(axes, shape, strict=True))
    return _create(group, name, shape, dtype, axes, chunks)


def create_record(
    group: zarr.Group, name: str, shape: tuple[int, ...], dtype: npt.DTypeLike, axes: tuple[str, ...]
) -> zarr.Array[Any]:
    """Create a small array that is one chunk, so that it is replaced as a whole or not at all."""
    array = _create(group, name, shape, dtype, axes, chunks=shape)
    write_chunk(array, (0,) * len(shape), np.zeros(shape, dtype))
    return array


def _create(
    group: zarr.Group,
    name: str,
    shape: tuple[int, ...],
    dtype: npt.DTypeLike,
    axes: tuple[str, ...],
    chunks: tuple[int, ...],
) -> zarr.Array[Any]:
    return group.create_array(
        name,
        shape=shape,
        dtype=dtype,
        chunks=chunks,
        compressors=compressors(),
        chunk_key_encoding=CHUNK_NAMES,
        dimension_names=axes,
        fill_value=0,
        config={"write_empty_chunks": True},
    )


def has_slice(array: zarr.Array[Any], z: int) -> bool:
    """Return whether slice `z` of an array from `create_slices` was ever written.

    Raises
    ------
    CaseError
        If the store cannot be read.
    """
    with reading(f"Slice {z + 1}", where(array)):
        return has_chunk(array, _slice_index(array, z))


def read_slice(array: zarr.Array[Any], z: int) -> npt.NDArray[Any] | None:
    """Return slice `z` of an array from `create_slices`, or None if it was never written.

    Raises
    ------
    CaseError
        If the chunk is damaged or cannot be read.
    """
    with reading(f"Slice {z + 1}", where(array)):
        chunk = read_chunk(array, _slice_index(array, z))
        return None if chunk is None else chunk.squeeze(axis=array.ndim - 3)


def write_slice(array: zarr.Array[Any], z: int, values: npt.NDArray[Any]) -> None:
    """Write slice `z` of an array from `create_slices`: the old or the new bytes, never half.

    Raises
    ------
    CaseError
        If the disk is full or the folder is read-only.
    """
    with writing(f"slice {z + 1}", where(array)):
        write_chunk(array, _slice_index(array, z), np.expand_dims(values, array.ndim - 3))


def read_record(array: zarr.Array[Any], what: str) -> npt.NDArray[Any]:
    """Return an array from `create_record`; `what` is its name in messages.

    Raises
    ------
    CaseError
        If it is missing, damaged or cannot be read.
    """
    with reading(what, where(array)):
        values = read_chunk(array, (0,) * array.ndim)
        if values is None:
            raise ValueError("a record is never without its chunk")
        return values


def write_record(array: zarr.Array[Any], values: npt.NDArray[Any], what: str) -> None:
    """Replace an array from `create_record` as a whole; `what` is its name in messages.

    Raises
    ------
    CaseError
        If the disk is full or the folder is read-only.
    """
    with writing(what, where(array)):
        write_chunk(array, (0,) * array.ndim, values)


def create_rows(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Create an array with a row of bytes for each number, of which most are never written.

    A row is as many chunks of `ROW_BYTES` as its bytes need, usually one. The array is declared as
    large as what is written: other readers ask for all of it.
    """
    return _create(group, name, (1, 1), np.uint8, ("number", "byte"), chunks=(1, ROW_BYTES))


def fit_rows(array: zarr.Array[Any]) -> None:
    """Declare an array from `create_rows` no larger than it is, as the first versions did not.

    Raises
    ------
    CaseError
        If the folder is read-only or gone.
    """
    if array.shape[0] < _ROWS or not isinstance(array.store, LocalStore):
        return
    with writing("the history", where(array)):
        indices = chunk_indices(array)
        shape = [
            1 + max([0, *(row for row, _ in indices)]),
            ROW_BYTES * (1 + max([0, *(n for _, n in indices)])),
        ]
        path = Path(array.store.root, array.path, "zarr.json")
        # Not by zarr, which looks at each chunk that an array could have had.
        write_text(path, json.dumps(json.loads(path.read_bytes()) | {"shape": shape}))


def rows(array: zarr.Array[Any]) -> list[int]:
    """Return which rows of an array from `create_rows` are there, whole or not; CaseError if it is gone."""
    with reading("The list of revisions", where(array)):
        return sorted({index[0] for index in chunk_indices(array)})


def read_row(array: zarr.Array[Any], number: int) -> bytes:
    """Return the bytes of a row, followed by zeros; a chunk that cannot be read is zeros too.

    What lies in a row says itself how long it is and carries a checksum.

    Raises
    ------
    CaseError
        If the array is gone.
    """
    pieces: list[bytes] = []
    while True:
        try:
            with reading(f"Revision {number}", where(array)):
                piece = read_bytes(array, (number, len(pieces)))
        except DamagedError:
            piece = bytes(ROW_BYTES)
        if piece is None:
            return b"".join(pieces)
        pieces.append(piece)


def write_row(array: zarr.Array[Any], number: int, data: bytes, what: str) -> None:
    """Write a row; one that is longer than `ROW_BYTES` may be left half written by a crash.

    Raises
    ------
    CaseError
        If the disk is full or the folder is read-only.
    """
    with writing(what, where(array)):
        _make_room(array, number, len(data))
        for piece, begin in enumerate(range(0, len(data), ROW_BYTES)):
            chunk = np.zeros((1, ROW_BYTES), np.uint8)
            part = np.frombuffer(data[begin : begin + ROW_BYTES], np.uint8)
            chunk[0, : len(part)] = part
            write_chunk(array, (number, piece), chunk)


_SPARE = 64  # rows that are declared at once


def _make_room(array: zarr.Array[Any], number: int, length: int) -> None:
    """Declare an array from `create_rows` large enough for a row of `length` bytes, and little larger.

    In a local folder without zarr, which needs a thread for it and can start none any more where a
    program ends with a revision still to be written.
    """
    path = Path(array.store.root, array.path, "zarr.json") if isinstance(array.store, LocalStore) else None
    try:
        metadata = json.loads(path.read_bytes()) if path is not None else {"shape": array.shape}
        count, wide = metadata["shape"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return  # damaged meanwhile: the row counts for more, and who begins to write next makes it again
    if number < count and length <= wide:
        return
    shape = [
        count if number < count else (number // _SPARE + 1) * _SPARE,
        wide if length <= wide else 1 << (length - 1).bit_length(),
    ]
    if path is not None:
        write_text(path, json.dumps(metadata | {"shape": shape}))
    else:
        array.resize(shape)


def _slice_index(array: zarr.Array[Any], z: int) -> tuple[int, ...]:
    """Index of a slice's chunk: arrays are (z, y, x) or (class, z, y, x)."""
    return (*(0,) * (array.ndim - 3), int(z), 0, 0)
