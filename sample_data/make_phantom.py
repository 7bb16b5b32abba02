"""Write a phantom chest CT and its truth as NIfTI.

python sample_data/make_phantom.py FOLDER [--seed 7] [--healthy] [--shape 80 256 256] [--spacing 4 1.4 1.4]
python sample_data/make_phantom.py --sample       the sample that ships with the package
"""

from __future__ import annotations

import argparse
import bz2
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from napari_covseg.scans import write_labels
from phantom import Phantom, phantom

SAMPLE = Path(__file__).parents[1] / "src" / "napari_covseg" / "phantom.nrrd"
SAMPLE_GRID = 7, (64, 256, 256), (5.0, 1.4, 1.4)
"""Seed, shape and spacing of the sample."""


def main() -> None:
    """Write what the arguments ask for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--healthy", action="store_true", help="the same patient without lesions")
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 256, 256), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(4.0, 1.4, 1.4), metavar=("Z", "Y", "X"))
    parser.add_argument("--sample", action="store_true", help="write the sample of the package")
    given = parser.parse_args()
    if given.sample:
        write_sample(SAMPLE, phantom(*SAMPLE_GRID))
        print(f"{SAMPLE}: {SAMPLE.stat().st_size / 1e6:.2f} MB")
    elif given.folder is None:
        parser.error("say into which folder")
    else:
        write(given.folder, phantom(given.seed, given.shape, given.spacing, lesions=not given.healthy))
        print(*sorted(given.folder.glob("*.nii.gz")), sep="\n")


def write(folder: Path, made: Phantom) -> None:
    """Write ct.nii.gz, lungs.nii.gz and lesions.nii.gz."""
    folder.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(made.scan.voxels)
    image.SetSpacing(made.scan.spacing[::-1])
    image.SetOrigin(made.scan.source_affine[:3, 3].tolist())
    sitk.WriteImage(image, str(folder / "ct.nii.gz"))
    write_labels(made.lungs, made.scan, folder / "lungs.nii.gz")
    write_labels(made.lesions, made.scan, folder / "lesions.nii.gz")


def write_sample(path: Path, made: Phantom) -> None:
    """Write a scan small: HU in steps that no window shows, those of air in coarser ones, by bzip2."""
    voxels = made.scan.voxels
    step = np.where(voxels < -950, 50, 10)
    voxels = np.maximum(np.rint(voxels / step) * step, -1024).astype("<i2")
    vectors = " ".join(
        f"({','.join(f'{value:g}' for value in column)})" for column in made.scan.source_affine[:3, :3].T
    )
    lines = (
        "NRRD0004",
        "type: int16",
        "dimension: 3",
        "space: left-posterior-superior",
        f"sizes: {' '.join(str(size) for size in voxels.shape[::-1])}",
        f"space directions: {vectors}",
        f"space origin: ({','.join(f'{value:g}' for value in made.scan.source_affine[:3, 3])})",
        "endian: little",
        "encoding: bzip2",
    )
    path.write_bytes("\n".join([*lines, "", ""]).encode("ascii") + bz2.compress(voxels.tobytes()))


if __name__ == "__main__":
    main()
