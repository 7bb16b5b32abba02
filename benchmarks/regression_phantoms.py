"""Make the phantoms that ship with the models: what a fine-tuned version is not to forget.

    python benchmarks/regression_phantoms.py

Writes src/napari_covseg/learn/phantoms.npz: slices of a few phantoms, 30 mm apart, with
their truth. They are made once, because a phantom takes seconds and a person waits.
"""

from __future__ import annotations

import numpy as np

from napari_covseg.learn.gate import FILE, SEEDS, make_phantom


def main() -> None:
    """Write the file and say how large it is."""
    arrays = {}
    for seed in SEEDS:
        voxels, lungs, lesions = make_phantom(seed)
        arrays |= {f"voxels {seed}": voxels, f"lungs {seed}": lungs, f"lesions {seed}": lesions}
    np.savez_compressed(FILE, **arrays)
    print(f"{FILE.name}: {len(SEEDS)} phantoms, {FILE.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
