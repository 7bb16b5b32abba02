"""Write a phantom chest CT and its truth as NIfTI.

python sample_data/make_phantom.py FOLDER [--seed 7] [--healthy] [--shape 80 256 256] [--spacing 4 1.4 1.4]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from napari_covseg.scans.phantom import phantom
from napari_covseg.scans.scan import Scan


def main() -> None:
    """Write ct.nii.gz, lungs.nii.gz and lesions.nii.gz into a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--healthy", action="store_true", help="the same patient without lesions")
    parser.add_argument("--shape", type=int, nargs=3, default=(80, 256, 256), metavar=("Z", "Y", "X"))
    parser.add_argument("--spacing", type=float, nargs=3, default=(4.0, 1.4, 1.4), metavar=("Z", "Y", "X"))
    given = parser.parse_args()
    made = phantom(given.seed, given.shape, given.spacing, lesions=not given.healthy)
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, values in (("ct", made.scan.voxels), ("lungs", made.lungs), ("lesions", made.lesions)):
        path = given.folder / f"{name}.nii.gz"
        write(values, made.scan, path)
        print(path)


def write(values: npt.NDArray[np.generic], scan: Scan, path: Path) -> None:
    """Write an array (z, y, x) in the geometry of its scan."""
    assert scan.spacing is not None
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(scan.spacing[::-1])
    image.SetOrigin(scan.source_affine[:3, 3].tolist())
    sitk.WriteImage(image, str(path))


if __name__ == "__main__":
    main()
