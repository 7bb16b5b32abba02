"""Make the phantoms that ship with the models: what a fine-tuned version is not to forget.

    python sample_data/make_regression.py

Writes src/napari_covseg/learn/phantoms.npz: slices of a few phantoms, 30 mm apart, with
their truth. They are made once, because a phantom takes seconds and a person waits.
"""

from __future__ import annotations

import numpy as np

from napari_covseg.learn.regression import FILE, SEEDS
from phantom import Phantom, phantom


def made(seed: int) -> Phantom:
    """Make a phantom of eight slices."""
    return phantom(seed, (8, 192, 192), (30.0, 1.87, 1.87))


def main() -> None:
    """Write the file and say how large it is."""
    arrays = {}
    for seed in SEEDS:
        one = made(seed)
        arrays |= {
            f"voxels {seed}": one.scan.voxels,
            f"lungs {seed}": one.lungs,
            f"lesions {seed}": one.lesions,
        }
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {len(SEEDS)} phantoms, {FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
