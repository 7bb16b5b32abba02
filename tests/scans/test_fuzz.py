"""Whatever is done to a file, reading it ends in a Scan or in one sentence."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image, TiffImagePlugin
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    RLELossless,
)
from xrays import table, write_xray

from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, read_scan

PER_KIND = 50
MOST_MEMORY = 64 << 20

Mutation = Callable[[bytearray, np.random.Generator], bytearray]


def truncate(data: bytearray, rng: np.random.Generator) -> bytearray:
    return data[: rng.integers(0, len(data))]


def flip_bits(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, len(data), rng.integers(1, 9)):
        data[at] ^= 1 << rng.integers(0, 8)
    return data


def mangle_header(data: bytearray, rng: np.random.Generator) -> bytearray:
    for at in rng.integers(0, min(len(data), 1400), rng.integers(1, 5)):
        data[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF, ord("-"), ord("9"), ord("n"), ord("\n")])
    return data


def overwrite(data: bytearray, rng: np.random.Generator) -> bytearray:
    at, size = rng.integers(0, len(data)), rng.integers(1, 40)
    data[at : at + size] = rng.bytes(size)
    return data


def shift(data: bytearray, rng: np.random.Generator) -> bytearray:
    at, size = rng.integers(0, len(data)), int(rng.integers(1, 20))
    data[at:at] = data[at : at + size]
    return data


def mangle_digits(data: bytearray, rng: np.random.Generator) -> bytearray:
    digits = [at for at, byte in enumerate(data[:1400]) if 48 <= byte < 58] or [0]
    for at in rng.choice(digits, 2):
        data[at : at + 1] = rng.choice([b"9999999", b"-", b"0", b"1e300", b"nan", b""])
    return data


def swap(data: bytearray, rng: np.random.Generator) -> bytearray:
    size = int(rng.integers(1, 60))
    a, b = sorted(rng.integers(0, max(len(data) - size, 1), 2))
    if b >= a + size:
        data[a : a + size], data[b : b + size] = data[b : b + size], data[a : a + size]
    return data


MUTATIONS: list[Mutation] = [truncate, flip_bits, mangle_header, overwrite, shift, mangle_digits, swap]


def write_volume(path: Path) -> Path:
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 9, 10), dtype=np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(values), str(path), useCompression=path.stem == "packed")
    return path


def write_kinds(folder: Path) -> list[Path]:
    """Write files as other tools write them: words, axes of one, extensions, pages without a directory."""
    values = np.random.default_rng(0).integers(-1000, 1000, (4, 9, 10), dtype=np.int16)
    words, lines = " ".join(map(str, values.ravel())).encode(), values.tobytes().hex("\n", 32).encode()
    nrrd = "NRRD0005\ntype: short\ndimension: {}\nsizes: {}\nendian: little\n{}\nencoding: {}\n\n"
    space = "space: LPS\nspace directions: {}(0.7,0,0) (0,0.8,0) (0,0,2)\nspace origin: (1,2,3)"
    old = "spacings: 0.7 0.8 2\naxis mins: 1 2 3\ncenters: node cell cell"
    meta = (
        "NDims = 3\nDimSize = 10 9 4\nElementSpacing = 1 1 2\nElementType = MET_SHORT\nBinaryData = False\n"
        "ElementDataFile = LOCAL\n"
    )
    extension = b"\1\0\0\0" + np.array([1040, 6], "<i4").tobytes() + b"x" * 1032
    nifti = nib.Nifti2Header()
    nifti.set_data_shape((10, 9, 4))
    nifti.set_data_dtype(np.int16)
    nifti["magic"], nifti["vox_offset"] = nifti.single_magic, 540 + len(extension)
    nifti.set_sform(np.diag([-0.7, -0.8, 2, 1]), 1)
    page = io.BytesIO()
    directory = TiffImagePlugin.ImageFileDirectory_v2()
    directory[TiffImagePlugin.IMAGEDESCRIPTION] = "ImageJ=1.53t\nimages=4\nslices=4\n"
    Image.fromarray(values[0].view(np.uint16)).save(page, "tiff", tiffinfo=directory)
    kinds = {
        "words.nrrd": nrrd.format(3, "10 9 4", space.format(""), "ascii").encode() + words,
        "hex.nrrd": nrrd.format(3, "10 9 4", old, "hex").encode() + lines,
        "four.nrrd": nrrd.format(4, "1 10 9 4", space.format("none "), "raw").encode() + values.tobytes(),
        "words.mha": meta.encode() + words,
        "extension.nii": nifti.binaryblock + extension + values.tobytes(),
        "members.nii.gz": gzip.compress(nifti.binaryblock)
        + gzip.compress(extension + values.tobytes())
        + b"tail",
        "stack.tif": page.getvalue() + values[1:].tobytes(),
    }
    for name, data in kinds.items():
        (folder / name).write_bytes(data)
    return [folder / name for name in kinds]


def write_picture(path: Path) -> Path:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 31), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def originals(tmp_path, make_slice, make_enhanced, ct) -> dict[str, bytes]:
    """Bytes of one whole file of each kind, by name."""
    curve = [table(np.arange(4096), bits=12)]
    small = np.random.default_rng(0).integers(0, 65536, (12, 10), dtype=np.uint16)
    made = [
        make_slice(tmp_path / "raw.dcm"),
        make_slice(tmp_path / "implicit.dcm", syntax=ImplicitVRLittleEndian),
        make_slice(tmp_path / "lossless.dcm", syntax=JPEGLosslessSV1),
        make_slice(tmp_path / "wavelet.dcm", syntax=JPEG2000Lossless),
        make_slice(tmp_path / "twelve.dcm", BitsStored=12, HighBit=11, PixelRepresentation=0),
        make_enhanced(tmp_path / "enhanced.dcm", ct((3, 12, 10)), [0, 1, 2]),
        make_enhanced(tmp_path / "packed.dcm", ct((3, 12, 10)), [0, 1, 2], syntax=RLELossless),
        *(write_volume(tmp_path / f"plain{ending}") for ending in (".nii", ".nrrd", ".mha")),
        *(write_volume(tmp_path / f"packed{ending}") for ending in (".nii.gz", ".nrrd", ".mha")),
        *(write_picture(tmp_path / f"picture{ending}") for ending in (".png", ".jpg", ".tif")),
        write_xray(tmp_path / "xray.dcm", small, bits=16, WindowCenter=9000, WindowWidth=9000),
        write_xray(tmp_path / "curve.dcm", small >> 4, PixelPaddingValue=0, VOILUTSequence=curve),
        *write_kinds(tmp_path),
    ]
    return {path.name: path.read_bytes() for path in made}


def unpacked(data: bytes) -> bytes:
    return gzip.decompress(data.removesuffix(b"tail"))


def mutated(name: str, data: bytes, seed: int) -> bytes:
    """Damage a file; of compressed NIfTI every second time what is inside."""
    rng = np.random.default_rng([seed, len(name)])
    mutation = MUTATIONS[seed % len(MUTATIONS)]
    if name.endswith(".gz") and seed % 2:
        return gzip.compress(bytes(mutation(bytearray(unpacked(data)), rng)), 1)
    return bytes(mutation(bytearray(data), rng))


@pytest.mark.slow
def test_damaged_files_end_in_a_scan_or_a_scan_error(tmp_path, originals, capfd):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for name, data in originals.items():  # also loads every library before memory is watched
        (folder / name).write_bytes(data)
        assert isinstance(read_scan(folder / name), Scan), name
    capfd.readouterr()
    counts = {"scan": 0, "refused": 0}
    tracemalloc.start()
    for name, data in originals.items():
        for seed in range(PER_KIND):
            (folder / name).write_bytes(mutated(name, data, seed))
            tracemalloc.reset_peak()
            try:
                with warnings.catch_warnings(action="error"):
                    scan = read_scan(folder / name)
            except ScanError as error:
                counts["refused"] += 1
                assert name in str(error) and "\n" not in str(error), f"{name} {seed}: {error}"
            else:
                counts["scan"] += 1
                assert scan.voxels.dtype == np.int16 or scan.stated, f"{name} {seed}"
                assert scan.voxels.min() >= -1024 or scan.stated, f"{name} {seed}"
            assert tracemalloc.get_traced_memory()[1] < MOST_MEMORY, f"{name} {seed}"
    tracemalloc.stop()
    assert sum(counts.values()) >= 500
    assert min(counts.values()) > 50  # the damage is neither always harmless nor always fatal
    assert "WARNING" not in capfd.readouterr().err  # the codecs inside GDCM say a word, ITK does not


def test_a_damaged_file_among_slices(tmp_path, make_series):
    make_series(tmp_path)
    path = tmp_path / "IM0002.dcm"
    data = path.read_bytes()
    for seed in range(30):
        path.write_bytes(mutated("slice", data, seed))
        try:
            assert read_scan(tmp_path).voxels.min() >= -1024
        except ScanError as error:
            assert "\n" not in str(error)


def by_pydicom(path: Path) -> np.ndarray | None:
    """HU of a slice, in no order; None where pydicom does not read it, or more than a rescaling is asked."""
    try:
        dataset = pydicom.dcmread(path, force=True)
        values = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        if (
            "PixelPaddingValue" in dataset
            or dataset.BitsStored < 16
            or dataset.PhotometricInterpretation[-1] == "1"
        ):
            return None  # pydicom leaves to whoever asks what that means
    except Exception:  # it meets damage with any kind of exception
        return None
    return np.sort(np.clip(np.rint(values), -1024, 32767).ravel())


@pytest.mark.filterwarnings("ignore")
def test_damaged_slices_are_refused_or_right(tmp_path, originals):
    counts = {"refused": 0, "right": 0}
    for name in ("raw.dcm", "implicit.dcm", "lossless.dcm"):
        for seed in range(1000, 1070):
            path = tmp_path / name
            path.write_bytes(mutated(name, originals[name], seed))
            try:
                scan = read_scan(path)
            except ScanError:
                counts["refused"] += 1
                continue
            right = by_pydicom(path) if scan.intensity == "HU" else None
            if right is not None:
                counts["right"] += 1
                np.testing.assert_array_equal(np.sort(scan.voxels.ravel()), right, err_msg=f"{name} {seed}")
    assert min(counts.values()) > 30


@pytest.mark.parametrize("kind", ["raw", "implicit", "lossless"])
@pytest.mark.parametrize("cut", [1, 4])
def test_a_slice_cut_at_any_length_is_missed(tmp_path, make_series, ct, kind, cut):
    volume = ct((5, 12, 10))
    syntax = {"raw": ExplicitVRLittleEndian, "implicit": ImplicitVRLittleEndian, "lossless": JPEGLosslessSV1}[
        kind
    ]
    make_series(tmp_path, volume, syntax=syntax, names=[f"I{n}" for n in range(5)])
    path = tmp_path / f"I{cut}"
    data = path.read_bytes()
    for length in range(0, len(data), 37):
        path.write_bytes(data[:length])
        with pytest.raises(ScanError, match=rf"I{cut} .*copy it again"):
            read_scan(tmp_path)
    path.write_bytes(data[:-8] if kind == "lossless" else data)  # only the end mark is lost
    np.testing.assert_array_equal(read_scan(tmp_path).voxels, volume)


@pytest.mark.parametrize("name", ["plain.nii", "packed.nii.gz", "extension.nii", "words.nrrd"])
def test_what_is_still_read_of_a_damaged_volume_is_what_its_own_reader_reads(tmp_path, originals, name):
    path, compared = tmp_path / "damaged" / name, 0
    path.parent.mkdir()
    for seed in range(1000, 1060):
        path.write_bytes(mutated(name, originals[name], seed))
        try:
            found = np.sort(read_scan(path, values="HU").voxels.ravel())
        except ScanError:
            continue
        try:
            by_itk = name.endswith(".nrrd")
            theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(path))) if by_itk else nib.load(path).dataobj
        except Exception:  # it meets damage with any kind of exception
            continue
        expected = np.clip(np.rint(np.asarray(theirs, np.float64)), -1024, 32767)
        np.testing.assert_array_equal(found, np.sort(expected.ravel()), err_msg=str(seed))
        compared += 1
    assert compared > 5
