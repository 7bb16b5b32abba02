"""NRRD and MetaImage as other tools and other times wrote them, read as SimpleITK reads them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from thorax import thorax

from napari_covseg.errors import ScanError
from napari_covseg.scans import read_scan, write_labels

T = thorax((6, 20, 24))
SPACE = (
    "space: left-posterior-superior\nspace directions: (0.7,0,0) (0,0.8,0) (0,0,2)\nspace origin: (1,2,3)\n"
)


def nrrd(
    path: Path, fields: str, data: bytes = T.tobytes(), encoding: str = "raw", kind: str = "short"
) -> Path:
    sizes = "" if "sizes:" in fields else "dimension: 3\nsizes: 24 20 6\n"
    head = f"NRRD0005\ntype: {kind}\n{sizes}{fields}endian: little\nencoding: {encoding}\n\n"
    path.write_bytes(head.encode() + data)
    return path


def mhd(path: Path, name: bytes, data: bytes = T.tobytes(), **fields: str) -> Path:
    known = {"NDims": "3", "BinaryData": "True", "TransformMatrix": "1 0 0 0 1 0 0 0 1", "Offset": "1 2 3"}
    known |= {"ElementSpacing": "0.7 0.8 2", "DimSize": "24 20 6", "ElementType": "MET_SHORT"} | fields
    text = "".join(f"{key} = {value}\n" for key, value in known.items()).encode()
    path.write_bytes(text + b"ElementDataFile = " + name + b"\n" + (data if name == b"LOCAL" else b""))
    return path


def assert_read_as_simpleitk_does(path: Path, mask: Path) -> None:
    """Voxels and place of a scan, and of a mask that is written of it."""
    scan = read_scan(path)
    theirs = sitk.ReadImage(str(path))
    if theirs.GetDimension() == 4:
        theirs = theirs[0] if theirs.GetSize()[0] == 1 else theirs[..., 0]
    np.testing.assert_array_equal(np.sort(scan.voxels.ravel()), np.sort(T.ravel()))
    write_labels((scan.voxels > -500).astype(np.uint8), scan, mask)
    ours = sitk.ReadImage(str(mask))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs) > -500)
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, geometry)() == pytest.approx(getattr(theirs, geometry)()), geometry


def words(values: np.ndarray, between: str = " ") -> bytes:
    return between.join(map(str, values.ravel().tolist())).encode()


@pytest.mark.parametrize("between", [" ", "\n", "  \t "])
@pytest.mark.parametrize("encoding", ["ascii", "text"])
def test_nrrd_in_words(tmp_path, encoding, between):
    path = nrrd(tmp_path / "s.nrrd", SPACE, words(T, between), encoding)
    assert_read_as_simpleitk_does(path, tmp_path / "m.nrrd")


def test_nrrd_in_hexadecimal_and_floats_in_words(tmp_path):
    lines = T.tobytes().hex("\n", 32).encode()
    assert_read_as_simpleitk_does(nrrd(tmp_path / "h.nrrd", SPACE, lines, "hex"), tmp_path / "m.nrrd")
    path = nrrd(tmp_path / "f.nrrd", SPACE, words(T.astype(np.float32)), "ascii", "float")
    assert_read_as_simpleitk_does(path, tmp_path / "m.nrrd")
    path = mhd(tmp_path / "t.mha", b"LOCAL", words(T) + b"\n", BinaryData="False")
    assert_read_as_simpleitk_does(path, tmp_path / "m.mha")


@pytest.mark.parametrize(
    ("data", "encoding"),
    [(words(T)[:-9000], "ascii"), (words(T) + b" x", "hex"), (b"99999 " + words(T), "ascii"),
     (b"1.5 " + words(T), "ascii"), (b"9" * 90_000, "ascii"), (b"0" * 5761, "hex")],
)  # fmt: skip
def test_words_that_are_no_numbers_or_too_few(tmp_path, data, encoding):
    with pytest.raises(ScanError, match=r"s\.nrrd is truncated or damaged"):
        read_scan(nrrd(tmp_path / "s.nrrd", SPACE, data, encoding))


@pytest.mark.parametrize(
    ("sizes", "directions"),
    [
        ("1 24 20 6", "none (0.7,0,0) (0,0.8,0) (0,0,2)"),
        ("24 20 6 1", "(0.7,0,0) (0,0.8,0) (0,0,2) none"),
        ("24 1 20 6", "(0.7,0,0) none (0,0.8,0) (0,0,2)"),
    ],
)
def test_an_axis_of_one_is_dropped_wherever_it_stands(tmp_path, sizes, directions):
    fields = (
        f"dimension: 4\nspace: LPS\nsizes: {sizes}\nspace directions: {directions}\nspace origin: (1,2,3)\n"
    )
    scan = read_scan(nrrd(tmp_path / "s.nrrd", fields))
    np.testing.assert_array_equal(scan.voxels, T)
    np.testing.assert_allclose(scan.affine @ [1, 1, 1, 1], [1.7, 2.8, 5, 1])
    spacing = " ".join(
        "nan" if word == "1" else {"24": "0.7", "20": "0.8", "6": "2"}[word] for word in sizes.split()
    )
    scan = read_scan(nrrd(tmp_path / "o.nrrd", f"dimension: 4\nsizes: {sizes}\nspacings: {spacing}\n"))
    assert scan.spacing == pytest.approx((2, 0.8, 0.7))
    matrix = " ".join(map(str, np.eye(4).ravel()))
    scan = read_scan(
        mhd(tmp_path / "s.mha", b"LOCAL", NDims="4", DimSize=sizes,
            ElementSpacing=spacing.replace("nan", "1"), TransformMatrix=matrix, Offset="4 4 4 4")
    )  # fmt: skip
    np.testing.assert_array_equal(scan.voxels, T)
    assert scan.spacing == pytest.approx((2, 0.8, 0.7))


def test_time_points_are_refused(tmp_path):
    fields = "dimension: 4\nspace: LPS\nsizes: 2 24 20 3\nspace directions: none (1,0,0) (0,1,0) (0,0,1)\n"
    with pytest.raises(ScanError, match=r"has 4 dimensions \(2 x 24 x 20 x 3\), a scan has three"):
        read_scan(nrrd(tmp_path / "s.nrrd", fields))


@pytest.mark.parametrize("fields", ["", "centers: cell cell cell\n", "centers: node node cell\n"])
def test_old_nrrd_with_only_axis_mins(tmp_path, fields):
    path = nrrd(tmp_path / "s.nrrd", f"spacings: 0.7 0.8 2\naxis mins: -30 -20 100\n{fields}")
    assert_read_as_simpleitk_does(path, tmp_path / "m.nrrd")


def test_lines_that_are_skipped(tmp_path):
    path = nrrd(tmp_path / "s.nrrd", SPACE + "line skip: 2\nbyte skip: 3\n", b"one\ntwo\nabc" + T.tobytes())
    assert_read_as_simpleitk_does(path, tmp_path / "m.nrrd")
    with pytest.raises(ScanError, match=r"truncated or damaged"):
        read_scan(nrrd(tmp_path / "s.nrrd", SPACE + "line skip: 90000\n"))


@pytest.mark.parametrize(
    ("named", "there"),
    [
        ("Müller_头部.raw".encode(), "Müller_头部.raw"),
        ("Müller.raw".encode("cp1252"), "Müller.raw"),
        ("头部.raw".encode("gb18030"), "头部.raw"),
        ("Müller.raw".encode(), unicodedata.normalize("NFD", "Müller.raw")),
        (rb"D:\ct\scan.raw", "scan.raw"),
        ("\\\\server\\share\\Müller.raw".encode(), "Müller.raw"),
        (b"/scans/ct/scan.raw", "scan.raw"),
        (b"../other/scan.raw", "scan.raw"),
        (b"SCAN.RAW", "scan.raw"),
        (b"scan.raw", "scan.RAW"),
    ],
)
@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_the_data_file_is_the_one_beside_the_header(tmp_path, named, there, ending):
    (tmp_path / there).write_bytes(T.tobytes())
    path = tmp_path / f"scan{ending}"
    if ending == ".mhd":
        mhd(path, named)
    else:
        nrrd(path, SPACE, b"")
        path.write_bytes(path.read_bytes()[:-1] + b"data file: " + named + b"\n\n")
    np.testing.assert_array_equal(read_scan(path).voxels, T)
    (tmp_path / there).unlink()
    with pytest.raises(ScanError, match=r"needs its data file .*, which is not beside it; copy both files"):
        read_scan(path)
