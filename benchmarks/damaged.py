"""Damage the files of scans at random, read them, and compare with what other libraries read.

    python benchmarks/damaged.py FOLDER [--number 20000] [--seed 1] [--only NAME]

FOLDER holds scans that go wrong, a folder for each. One file of one of them at a time is damaged (bits
flipped, cut off, overwritten, moved, swapped, digits changed), then read alone and, every fifth time,
with the files beside it. Reading ends in a scan or in one sentence that names the file or its folder;
where pydicom, nibabel, SimpleITK or tifffile read the damaged file too, the voxels are compared. What
differs is printed, by folder and by what differs, with the seeds that make it again.
"""

from __future__ import annotations

import argparse
import gzip
import logging
import os
import resource
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
import SimpleITK as sitk
import tifffile

from napari_covseg.errors import ScanError
from napari_covseg.scans import Scan, read_scan

Array = npt.NDArray[Any]
HEADER = 1400  # bytes in which digits and lengths lie
TOGETHER = 5  # every so many times the files beside it are read too
MOST = 4 << 30  # bytes that another reader may ask for
SHOWN = 6  # seeds that are named of each difference


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a damaged copy; of what is gzipped every second time what is inside."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.5:
        return gzip.compress(damaged(gzip.decompress(data), rng), 1)
    out = bytearray(data or b"\0")
    at, size = int(rng.integers(len(out))), int(rng.integers(1, 40))
    match int(rng.integers(7)):
        case 0:
            return bytes(out[:at])
        case 1:
            for one in rng.integers(0, len(out), rng.integers(1, 9)):
                out[one] ^= 1 << int(rng.integers(8))
        case 2:
            for one in rng.integers(0, min(len(out), HEADER), rng.integers(1, 5)):
                out[one] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, *b"-9n\n"]))
        case 3:
            out[at : at + size] = rng.bytes(size)
        case 4:
            out[at:at] = out[at : at + size]
        case 5:
            digits = [k for k, byte in enumerate(out[:HEADER]) if 48 <= byte < 58] or [0]
            one = int(rng.choice(digits))
            out[one : one + 1] = bytes(rng.choice([b"9999999", b"-", b"0", b"1e300", b"nan", b""]))
        case _:
            other = int(rng.integers(len(out)))
            first, second = bytes(out[at : at + size]), bytes(out[other : other + size])
            if len(first) == len(second) and abs(at - other) >= size:
                out[at : at + size], out[other : other + size] = second, first
    return bytes(out)


def by_pydicom(path: Path) -> Array:
    """Return the rescaled values of a DICOM file; what pads it is air, as for us."""
    said = pydicom.dcmread(path)
    stored = said.pixel_array
    shared = said.get("SharedFunctionalGroupsSequence")
    where = shared[0].PixelValueTransformationSequence[0] if shared else said
    slope, intercept = (float(where.get(name, usual)) for name, usual in RESCALE)
    values = stored * slope + intercept
    padding = said.get("PixelPaddingValue")
    if padding is not None:
        bounds = sorted((int(padding), int(said.get("PixelPaddingRangeLimit", padding))))
        values = np.where((stored >= bounds[0]) & (stored <= bounds[1]), -1024.0, values)
    return np.asarray(values)


def by_itk(path: Path) -> Array:
    """Return what ITK reads, in a process of its own: on some damaged MetaImages it ends with the process."""
    at = path.with_name("read.npy")
    child = os.fork()
    if child == 0:
        resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST))
        try:
            np.save(at, sitk.GetArrayFromImage(sitk.ReadImage(str(path))))
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise ValueError(path)
    values = np.load(at)
    at.unlink()
    return np.asarray(values)


RESCALE = (("RescaleSlope", 1), ("RescaleIntercept", 0))
OTHERS: dict[str, Callable[[Path], Array]] = {
    ".nii": lambda path: np.asanyarray(nib.load(path).dataobj),
    ".gz": lambda path: np.asanyarray(nib.load(path).dataobj),
    ".nrrd": by_itk,
    ".mhd": by_itk,
    ".mha": by_itk,
    ".tif": tifffile.imread,
}
"""What else reads a file, by its ending."""


def other_reader(path: Path) -> Callable[[Path], Array] | None:
    """Return what else reads a file, by its first bytes or its ending."""
    with path.open("rb") as file:
        if file.read(132)[128:] == b"DICM":
            return by_pydicom
    return OTHERS.get(path.suffix)


def alike(scan: Scan, values: Array) -> bool:
    """Whether the values are those of a scan, in whatever order."""
    with np.errstate(all="ignore"):
        theirs = np.clip(np.rint(np.nan_to_num(values.astype(np.float64), nan=-1024)), -1024, 32767)
    return theirs.size == scan.voxels.size and np.array_equal(
        np.sort(theirs.ravel()), np.sort(scan.voxels.astype(np.float64).ravel())
    )


def main() -> None:
    """Print what was read, refused, compared and different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--number", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", help="folders whose names begin so")
    given = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.disable(logging.CRITICAL)
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    folders = [one for one in sorted(given.folder.iterdir()) if one.is_dir()]
    if given.only:
        folders = [one for one in folders if one.name.startswith(given.only)]
    counts: Counter[str] = Counter()
    different: dict[tuple[str, str], list[int]] = defaultdict(list)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        copies = Path(shutil.copytree(given.folder, Path(place) / "scans"))
        for number in range(given.number):
            seed = given.seed * 10**6 + number
            rng = np.random.default_rng(seed)
            folder = copies / folders[number % len(folders)].name
            files = sorted(path for path in folder.rglob("*") if path.is_file())
            path = files[int(rng.integers(len(files)))]
            whole = path.read_bytes()
            path.write_bytes(damaged(whole, rng))
            for what in (path, folder) if number % TOGETHER == 0 else (path,):
                for said in _tried(what, path, what == path):
                    counts[said] += 1
                    if said.startswith(("wrong", "different", "crash")):
                        different[folder.name, said].append(seed)
            path.write_bytes(whole)
    for said, count in sorted(counts.items()):
        print(f"{count:6} {said}")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"{given.number} damaged files in {time.perf_counter() - began:.0f} s, memory at most {memory} MB")
    for (name, said), seeds in sorted(different.items()):
        print(f"{name}: {len(seeds)} {said}: seeds {', '.join(map(str, seeds[:SHOWN]))}")
    sys.exit(any(said.startswith("crash") for said in counts))


def _tried(what: Path, path: Path, alone: bool) -> list[str]:
    """Read a damaged file, or the folder that it lies in; return what came of it."""
    kind = "alone" if alone else "with others"
    try:
        scan = read_scan(what, values="HU")
    except ScanError as error:
        said = str(error)
        named = [*path.parents[:3], *path.parent.iterdir()]  # a gap lies between two others
        if "\n" in said or not any(part.name in said for part in named):
            return [f"wrong sentence: {said[:120]}"]
        return [f"refused {kind}"]
    except Exception as error:
        return [f"crash {kind}: {type(error).__name__}: {str(error)[:80]}"]
    if not alone or (reader := other_reader(path)) is None:
        return [f"read {kind}"]
    try:
        values = reader(path)
    except Exception:
        return [f"read {kind}", "compared: the other library refuses it"]
    if alike(scan, values):
        return [f"read {kind}", "compared: alike"]
    if values.size != scan.voxels.size:
        return [f"read {kind}", "compared: different", f"different {values.shape} for {scan.voxels.shape}"]
    if reader is by_pydicom and _only_unused_bits(path, scan, values):
        return [f"read {kind}", "compared: different only where damaged bits are unused ones"]
    return [f"read {kind}", "compared: different", "different values"]


def _only_unused_bits(path: Path, scan: Scan, values: Array) -> bool:
    """Whether what differs lies where bits above the stored ones are set.

    There a number has no right value: pydicom cuts such bits off, we take them for a padding value.
    """
    said = pydicom.dcmread(path)
    words = np.frombuffer(said.PixelData, "<u2")[: scan.voxels.size].reshape(scan.voxels.shape)
    theirs = np.clip(np.rint(values), -1024, 32767).reshape(scan.voxels.shape)
    above = words >> said.BitsStored
    return bool(above[theirs != scan.voxels].all())


if __name__ == "__main__":
    main()
