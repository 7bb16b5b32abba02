"""What is written past zarr is what zarr would have written, and the other way round."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from napari_covseg.cases.chunks import has_chunk, read_chunk, write_chunk
from napari_covseg.cases.store import create_slices, read_slice, write_slice

SHAPE = (4, 33, 21)


@pytest.fixture
def group(tmp_path: Path) -> zarr.Group:
    return zarr.open_group(tmp_path / "store", mode="w")


def values(dtype: Any, shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(0).integers(0, 2 if dtype == np.bool_ else 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.bool_, np.uint32, np.int64])
def test_zarr_reads_what_is_written_here_and_writes_what_is_read_here(group: zarr.Group, dtype: Any) -> None:
    data = values(dtype)
    array = create_slices(group, "a", SHAPE, dtype)
    for z in range(4):
        write_slice(array, z, data[z])
    assert np.array_equal(zarr.open_array(group.store, path="a", mode="r")[:], data)
    other = create_slices(group, "b", SHAPE, dtype)
    other[:] = data
    for z in range(4):
        assert np.array_equal(read_slice(other, z), data[z])
        ours, theirs = (Path(group.store.root, name, f"c.{z}.0.0") for name in "ab")
        assert ours.read_bytes() == theirs.read_bytes()


def test_an_array_that_another_tool_has_recompressed(group: zarr.Group) -> None:
    data = values(np.uint8)
    array = group.create_array(
        "a", shape=SHAPE, dtype=np.uint8, chunks=(1, *SHAPE[1:]), compressors=[ZstdCodec()]
    )
    assert read_slice(array, 1) is None
    write_slice(array, 1, data[1])
    assert np.array_equal(array[1], data[1])
    assert np.array_equal(read_slice(array, 1), data[1])
    assert has_chunk(array, (1, 0, 0))
    assert not has_chunk(array, (2, 0, 0))


def test_a_slice_of_zeros_is_not_a_missing_slice(group: zarr.Group) -> None:
    array = create_slices(group, "a", SHAPE, np.uint8)
    write_slice(array, 1, np.zeros(SHAPE[1:], np.uint8))
    assert read_slice(array, 0) is None
    assert not read_slice(array, 1).any()


def test_classes_of_a_slice_lie_in_one_chunk(group: zarr.Group) -> None:
    data = values(np.uint8, (3, *SHAPE))
    array = create_slices(group, "a", (3, *SHAPE), np.uint8, ("c", "z", "y", "x"))
    for z in range(4):
        write_slice(array, z, data[:, z])
    assert np.array_equal(array[:], data)
    assert np.array_equal(read_slice(array, 2), data[:, 2])
    assert len(list(Path(group.store.root, "a").glob("c.*"))) == 4


def test_a_wrong_shape_is_not_written(group: zarr.Group) -> None:
    array = create_slices(group, "a", SHAPE, np.uint8)
    with pytest.raises(ValueError, match="shape"):
        write_slice(array, 0, np.zeros((33, 20), np.uint8))
    assert read_slice(array, 0) is None


def test_what_is_read_can_be_written_to(group: zarr.Group) -> None:
    array = create_slices(group, "a", SHAPE, np.uint8)
    write_slice(array, 0, values(np.uint8)[0])
    read_slice(array, 0)[0, 0] = 3


def test_a_folder_that_is_gone_is_not_taken_for_empty_nor_made_anew(group: zarr.Group) -> None:
    array = create_slices(group, "a", SHAPE, np.uint8)
    shutil.rmtree(group.store.root)
    with pytest.raises(FileNotFoundError):
        read_chunk(array, (0, 0, 0))
    with pytest.raises(FileNotFoundError):
        write_chunk(array, (0, 0, 0), np.zeros((1, 33, 21), np.uint8))
    assert not Path(group.store.root).exists()
