"""TIFF stacks as ImageJ, tifffile and OME write them, and folders in which masks lie beside slices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from thorax import thorax

from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan
from napari_covseg.scans.pictures import in_natural_order

T = thorax((6, 30, 32))
GREY = np.asarray((np.clip(T, -1350, 150) + 1350) * (255 / 1500), np.uint8)


def single_page(path: Path, pages: np.ndarray, description: str, order: str = "<", **options: object) -> None:
    """Write all voxels one after the other behind a directory of a single page."""
    with tifffile.TiffWriter(path, byteorder=order) as file:
        file.write(pages[0], description=description, metadata=None, **options)
    data = path.read_bytes()
    with tifffile.TiffFile(path) as file:
        offset = file.pages[0].dataoffsets[0]
    assert offset + pages[0].nbytes == len(data)
    path.write_bytes(data + pages[1:].astype(pages.dtype.newbyteorder(order)).tobytes())


IMAGEJ = "ImageJ=1.53t\nimages=6\nslices=6\n"
SIGNED = IMAGEJ + "cf=0\nc0=-32768.0\nc1=1.0\nvunit=Gray Value\n"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("description", [IMAGEJ, '{"shape": [6, 30, 32], "truncated": true}'])
def test_slices_without_pages_of_their_own_are_read(tmp_path, kind, description, order):
    stored = GREY if kind == "u1" else (T + 1024 if kind == "u2" else T).astype(kind)
    single_page(tmp_path / "s.tif", stored, description, order)
    scan = read_scan(tmp_path / "s.tif", values="HU+1024" if kind == "u2" else None)
    np.testing.assert_array_equal(scan.voxels, GREY if kind == "u1" else T)


def test_what_imagej_writes_for_signed_numbers(tmp_path):
    stored = (T.astype(np.int32) + 32768).astype(np.uint16)
    single_page(tmp_path / "s.tif", stored, SIGNED)
    tifffile.imwrite(tmp_path / "t.tif", stored, description=SIGNED, metadata=None)  # with pages
    for name in ("s.tif", "t.tif"):
        scan = read_scan(tmp_path / name)
        np.testing.assert_array_equal(scan.voxels, T)
        assert scan.intensity == "HU"


@pytest.mark.parametrize("cut", [1, 5000])
def test_slices_that_are_not_there_are_missed(tmp_path, cut):
    single_page(tmp_path / "s.tif", T, IMAGEJ)
    data = (tmp_path / "s.tif").read_bytes()
    (tmp_path / "s.tif").write_bytes(data[:-cut])
    with pytest.raises(ScanError, match=r"s\.tif says that it holds 6 slices, of which only 1 can be read"):
        read_scan(tmp_path / "s.tif")


@pytest.mark.parametrize("description", ["", "somebody's stack", "ImageJ=1.53t\n"])
def test_slices_that_nothing_is_said_of_are_not_left_out(tmp_path, description):
    single_page(tmp_path / "s.tif", T, description)
    with pytest.raises(ScanError, match=r"s\.tif holds 6 slices and describes only one"):
        read_scan(tmp_path / "s.tif")


@pytest.mark.parametrize(
    "number", ["images=2\nslices=6", "images=6\nslices=2", "images=6e9\nslices=6", "images="]
)
def test_numbers_of_slices_that_contradict_each_other_are_no_guess(tmp_path, number):
    # of the first, two of six slices were read and nothing was said
    single_page(tmp_path / "s.tif", T, f"ImageJ=1.53t\n{number}\n")
    with pytest.raises(ScanError, match=r"s\.tif says in ImageJ's words, which contradict"):
        read_scan(tmp_path / "s.tif")


def test_compressed_slices_without_pages_are_missed(tmp_path):
    tifffile.imwrite(tmp_path / "s.tif", T[0], description=IMAGEJ, metadata=None, compression="zlib")
    with pytest.raises(ScanError, match=r"only 1 can be read"):
        read_scan(tmp_path / "s.tif")


@pytest.mark.parametrize("kind", ["ImageJ", "tifffile", "OME"])
def test_channels_are_no_slices(tmp_path, kind):
    both = np.stack([GREY, 255 - GREY], axis=1)  # z, channel, y, x
    path = tmp_path / ("s.ome.tif" if kind == "OME" else "s.tif")
    if kind == "tifffile":
        tifffile.imwrite(path, both)
    else:
        tifffile.imwrite(path, both, imagej=kind == "ImageJ", ome=kind == "OME", metadata={"axes": "ZCYX"})
    with pytest.raises(ScanError, match=r"holds \d channels or time points; save one of them as a stack"):
        read_scan(path)


@pytest.mark.parametrize("kind", ["ImageJ", "tifffile", "OME", "frames"])
def test_stacks_with_pages_are_read_as_ever(tmp_path, kind):
    axes = {"axes": "TYX" if kind == "frames" else "ZYX"}
    tifffile.imwrite(
        tmp_path / "s.tif", GREY, imagej=kind in ("ImageJ", "frames"), ome=kind == "OME", metadata=axes
    )
    np.testing.assert_array_equal(read_scan(tmp_path / "s.tif").voxels, GREY)
    tifffile.imwrite(tmp_path / "p.tif", GREY[0])
    np.testing.assert_array_equal(read_scan(tmp_path / "p.tif").voxels[0], GREY[0])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_white_is_0(tmp_path, kind):
    values = GREY[2].astype(kind) * (1 if kind == np.uint8 else 257)
    tifffile.imwrite(tmp_path / "s.tif", np.iinfo(kind).max - values, photometric="miniswhite")
    low, high = int(GREY[2].min()), int(GREY[2].max())
    expected = GREY[2] if kind == np.uint8 else np.rint((GREY[2] - float(low)) * 255 / (high - low))
    np.testing.assert_array_equal(read_scan(tmp_path / "s.tif").voxels[0], expected)


MASK = np.asarray(T > -500, np.uint8)


@pytest.mark.parametrize(
    ("slice_name", "mask_name", "scale"),
    [
        ("img_{}.png", "img_{}_mask.png", 255),
        ("img_{}.png", "img_{}-seg.png", 1),
        ("{}.png", "label.{}.png", 1),
        ("ct{}.png", "lung{}.png", 255),  # by their two grey values
        ("a{}.png", "b{}.png", 3),
    ],
)
def test_masks_are_no_slices(tmp_path, slice_name, mask_name, scale):
    for n, (grey, mask) in enumerate(zip(GREY, MASK, strict=True)):
        Image.fromarray(grey).save(tmp_path / slice_name.format(n))
        Image.fromarray(mask * scale if n else mask * 0).save(tmp_path / mask_name.format(n))
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.voxels, GREY)
    assert f"Left out 6 picture(s) that are masks, not slices: {mask_name.format(0)}" in scan.notes[1]


def test_masks_that_are_called_as_slices_are_refused(tmp_path):
    for n, (grey, mask) in enumerate(zip(GREY, MASK, strict=True)):
        Image.fromarray(grey).save(tmp_path / f"{2 * n}.png")
        Image.fromarray(mask * 255).save(tmp_path / f"{2 * n + 1}.png")
    with pytest.raises(ScanError, match=r"holds slices and masks of the same names; keep slices and"):
        read_scan(tmp_path)


def test_masks_alone_and_blank_slices_are_read(tmp_path):
    for folder, pages in (("masks", MASK * 255), ("blank", np.concatenate([GREY, GREY[:2] * 0]))):
        (tmp_path / folder).mkdir()
        for n, page in enumerate(pages):
            Image.fromarray(page).save(tmp_path / folder / f"{n}_mask.png")
        np.testing.assert_array_equal(read_scan(tmp_path / folder).voxels, pages)


@pytest.mark.parametrize(
    "names",
    [
        ["slice_-10.png", "slice_-2.png", "slice_0.png", "slice_3.png"],
        ["z-10.png", "z-2.png", "z0.png", "z3.png", "z12.png"],
        ["-10.5.png", "-10.25.png", "-2.0.png", "7.5.png"],
        ["loc=-120.50.png", "loc=-120.00.png", "loc=-20.png"],
        ["2020-01-05 -3.png", "2020-01-05 -2.png", "2020-01-05 1.png"],
        ["scan-1.png", "scan-2.png", "scan-10.png"],
        ["ct-001-2.png", "ct-001-3.png", "ct-002-1.png"],
    ],
)
def test_negative_numbers_sort_by_their_sign(names):
    assert [path.name for path in in_natural_order(map(Path, reversed(names)))] == names
