"""NIfTI headers as other tools write them: read as nibabel reads them, and masks that lie on their scan."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from thorax import thorax

from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, read_scan, write_labels
from napari_covseg.scans.nifti import PLACING

T = thorax((6, 20, 24))
LPS = {"srow_x": [-0.7, 0, 0, 30], "srow_y": [0, -0.8, 0, 20], "srow_z": [0, 0, 2, -100]}
ROTATED = {"quatern_b": 0.0, "quatern_c": 0.0, "quatern_d": 1.0}
OFFSETS = {"qoffset_x": 30.0, "qoffset_y": 20.0, "qoffset_z": -100.0}
BOTH = {"qform_code": 1, "sform_code": 1}
PIXDIM = [1, 0.7, 0.8, 2, 1, 1, 1, 1]


def pixdim(**changed: float) -> list[float]:
    return [changed.get(f"d{n}", value) for n, value in enumerate(PIXDIM)]


HEADERS: dict[str, dict[str, Any]] = {
    "sform and qform": BOTH,
    "qfac 0": BOTH | {"pixdim": pixdim(d0=0)},
    "qfac 0, qform alone": {"qform_code": 1, "pixdim": pixdim(d0=0)},
    "quaternion over 1": BOTH | {"quatern_d": 1.0000019},
    "quaternion over 1, qform alone": {"qform_code": 1, "quatern_d": 1.0000019},
    "quaternion of nothing": BOTH | {"quatern_d": np.nan, "quatern_b": 7.0},
    "negative spacing": BOTH | {"pixdim": pixdim(d1=-0.7)},
    "negative spacing, qform alone": {"qform_code": 1, "pixdim": pixdim(d2=-0.8)},
    "no spacing but the sform's": {"sform_code": 2, "pixdim": pixdim(d1=0, d2=0, d3=0)},
    "qform mirrored": BOTH | {"quatern_b": 1.0, "quatern_d": 0, "qoffset_x": -30, "pixdim": pixdim(d0=-1)},
    "no codes": {},
    "oblique qform alone": {"qform_code": 1, "quatern_b": 0.1, "quatern_c": 0.2, "quatern_d": 0.9},
    "micrometres": BOTH | {"xyzt_units": 3} | {k: [1000 * v for v in row] for k, row in LPS.items()}
                   | {"pixdim": pixdim(d1=700, d2=800, d3=2000)} | {k: 1000 * v for k, v in OFFSETS.items()},
}  # fmt: skip


def write(path: Path, kind: type = nib.Nifti1Header, extension: bytes = b"\0" * 4, **fields: Any) -> Path:
    """Write `T` under a header whose fields are exactly these."""
    header = kind(endianness=fields.pop("endianness", "<"))
    header.set_data_shape(T.shape[::-1])
    header.set_data_dtype(np.int16)
    known = {"pixdim": PIXDIM, "xyzt_units": 2} | LPS | ROTATED | OFFSETS | fields
    for name, value in known.items():
        header[name] = value
    pair = path.suffix == ".hdr"
    header["magic"] = header.pair_magic if pair else header.single_magic
    header["vox_offset"] = 0 if pair else kind.sizeof_hdr + len(extension)
    voxels = T.astype(header.endianness + "i2").tobytes()
    if pair:
        path.write_bytes(header.binaryblock)
        path.with_suffix(".img").write_bytes(voxels)
    else:
        data = header.binaryblock + extension + voxels
        path.write_bytes(gzip.compress(data, 1) if path.name.endswith(".gz") else data)
    return path


def header_of(path: Path, kind: type) -> Any:
    with (gzip.open if path.name.endswith(".gz") else open)(path, "rb") as file:
        return kind(file.read(kind.sizeof_hdr), check=False)


def assert_lies_as_nibabel_says(scan: Scan, path: Path) -> None:
    oracle = nib.load(path)
    to_mm = {1: 1000.0, 2: 1.0, 3: 0.001}[int(oracle.header["xyzt_units"]) & 7]
    to_lps = np.diag([-to_mm, -to_mm, to_mm, 1])
    np.testing.assert_allclose(scan.source_affine, to_lps @ oracle.affine, atol=1e-4)


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", HEADERS)
def test_a_mask_has_the_header_of_its_scan(tmp_path, name, ending, kind):
    path = write(tmp_path / f"scan{ending}", kind, **HEADERS[name])
    scan = read_scan(path)
    if "qform alone" not in name or "oblique" in name:  # nibabel refuses what ITK and we read
        assert_lies_as_nibabel_says(scan, path)
    np.testing.assert_array_equal(np.sort(scan.voxels.ravel()), np.sort(T.ravel()))
    rebuilt = Scan.from_header(scan.header(), scan.voxels)
    labels = (scan.voxels > -500).astype(np.uint8)
    write_labels(labels, rebuilt, tmp_path / f"mask{ending}")
    raw, mask = (header_of(tmp_path / f"{one}{ending}", kind) for one in ("scan", "mask"))
    for field in (*PLACING, "dim"):
        np.testing.assert_array_equal(mask[field], raw[field], err_msg=field)
    if name != "quaternion over 1, qform alone":
        written = nib.load(tmp_path / f"mask{ending}")
        np.testing.assert_array_equal(np.asarray(written.dataobj).T, T > -500)
    try:
        theirs = sitk.ReadImage(str(path))
    except RuntimeError:
        return
    ours = sitk.ReadImage(str(tmp_path / f"mask{ending}"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ours), sitk.GetArrayFromImage(theirs) > -500)
    for geometry in ("GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(ours, geometry)() == getattr(theirs, geometry)(), geometry


def test_a_quaternion_that_is_no_rotation_is_refused(tmp_path):
    with pytest.raises(ScanError, match=r"s\.nii has a damaged NIfTI header \(its quaternion is no rotation"):
        read_scan(write(tmp_path / "s.nii", qform_code=1, quatern_b=7.0))


@pytest.mark.parametrize("size", [16, 208, 1040, 60_000])
def test_extensions_of_any_length_are_passed_over(tmp_path, size):
    extension = b"\1\0\0\0" + np.array([size, 6], "<i4").tobytes() + b"x" * (size - 8)
    scan = read_scan(write(tmp_path / "s.nii.gz", extension=extension, sform_code=1))
    np.testing.assert_array_equal(scan.voxels, T)


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_pair(tmp_path, kind, order):
    path = write(tmp_path / "s.hdr", kind, endianness=order, sform_code=1)
    for asked in (path, path.with_suffix(".img"), tmp_path):
        np.testing.assert_array_equal(read_scan(asked).voxels, T)
    assert read_scan(path).name == "s"
    for half in (path, path.with_suffix(".img")):
        half.with_name(half.name + ".gz").write_bytes(gzip.compress(half.read_bytes()))
        half.unlink()
    np.testing.assert_array_equal(read_scan(tmp_path / "s.hdr.gz").voxels, T)
    (tmp_path / "s.img.gz").rename(tmp_path / "t.img.gz")
    with pytest.raises(ScanError, match=r"s\.hdr\.gz needs its data file"):
        read_scan(tmp_path / "s.hdr.gz")
    with pytest.raises(ScanError, match=r"t\.img\.gz needs its header \(t\.hdr\)"):
        read_scan(tmp_path / "t.img.gz")


def test_analyze_is_refused(tmp_path):
    nib.AnalyzeImage(T.T, np.eye(4)).to_filename(tmp_path / "s.hdr")
    with pytest.raises(ScanError, match=r"s\.hdr is an Analyze header, older than NIfTI"):
        read_scan(tmp_path)


@pytest.mark.parametrize("garbage", [b"\0" * 700, b"signature", b"\x1f", b"\x1f\x8bxyz" * 30])
def test_what_follows_a_gzip_is_ignored(tmp_path, garbage):
    path = write(tmp_path / "s.nii.gz", sform_code=1)
    whole = path.read_bytes()
    path.write_bytes(whole + garbage)
    np.testing.assert_array_equal(read_scan(path).voxels, T)
    raw = gzip.decompress(whole)
    path.write_bytes(b"".join(gzip.compress(raw[at : at + 999]) for at in range(0, len(raw), 999)) + garbage)
    np.testing.assert_array_equal(read_scan(path).voxels, T)  # several members, as pigz writes
    damaged = bytearray(whole)
    damaged[-6] ^= 1  # of the checksum
    path.write_bytes(damaged + garbage)
    with pytest.raises(ScanError, match=r"s\.nii\.gz is truncated or damaged"):
        read_scan(path)
