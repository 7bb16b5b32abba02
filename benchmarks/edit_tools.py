"""How long each correction tool takes on a slice and on a volume, from one run.

    python benchmarks/edit_tools.py [--slices 300] [--width 512] [--repeats 5] [--seed 1]

The scan is a phantom, made first; its lungs and lesions are what the tools work on. Printed are
the median time on the slice with most lesions, and the time on the whole volume, once, with the
largest peak of memory that NumPy asked for above the scan itself.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable
from statistics import median

import numpy as np
from scipy import ndimage

from napari_covseg.edit.between import fill_between
from napari_covseg.edit.edit import Edit, Labels
from napari_covseg.edit.grow import grow
from napari_covseg.edit.hu_range import PRESETS, in_range
from napari_covseg.edit.layers import add, subtract
from napari_covseg.edit.lungs import split_lungs
from napari_covseg.edit.measure import Reading, read_part
from napari_covseg.edit.relabel import relabel
from napari_covseg.edit.shape import clip_to_lungs, fill_holes, keep_largest, remove_islands, smooth
from napari_covseg.edit.snap import copy_to
from phantom_generator import Phantom, phantom

GGO = PRESETS["ground-glass"]
FRAME = 16.0  # ms
Run = Callable[[], object]


def centre_of(mask: np.ndarray) -> tuple[int, ...]:
    """Return the voxel of a mask that lies deepest in it."""
    depth = ndimage.distance_transform_edt(mask)
    return tuple(int(c) for c in np.unravel_index(np.argmax(depth), mask.shape))


def tools(case: Phantom, z: int, lungs: Labels) -> dict[str, tuple[Run, Run | None]]:
    """Return what each tool does on the slice and on the volume; `lungs` touch and have no sides."""
    labels, voxels, spacing = case.lesions, case.scan.voxels, case.scan.spacing
    y, x = centre_of(labels[z] == 2)
    point, last = (z, y, x), len(labels) - 1
    empty = np.zeros_like(labels)
    return {
        "range drawn on the slice": (lambda: in_range(voxels[z], GGO), None),
        "grow": (
            lambda: grow(empty, voxels, point, 2, GGO, spacing, lungs=lungs),
            lambda: grow(empty, voxels, point, 2, GGO, spacing, lungs=lungs, three_d=True),
        ),
        "fill between": (
            lambda: fill_between(labels, z - 1, z + 1, spacing),
            lambda: fill_between(lungs, last // 4, 3 * last // 4, spacing),
        ),
        "copy to the next slice": (lambda: copy_to(labels, voxels, z, z + 1, spacing), None),
        "islands": (
            lambda: remove_islands(labels, 2, 25.0, spacing, z=z),
            lambda: remove_islands(labels, 2, 200.0, spacing),
        ),
        "keep largest": (lambda: keep_largest(labels, 2, z=z), lambda: keep_largest(labels, 2)),
        "fill holes": (lambda: fill_holes(labels, 2, spacing, z=z), lambda: fill_holes(labels, 2, spacing)),
        "fill holes, lungs": (
            lambda: fill_holes(lungs, 3, spacing, z=z),
            lambda: fill_holes(lungs, 3, spacing),
        ),
        "smooth": (
            lambda: smooth(labels, 2, 1.5, spacing, z=z),
            lambda: smooth(labels, 2, 1.5, spacing),
        ),
        "smooth, lungs": (
            lambda: smooth(lungs, 3, 1.5, spacing, z=z),
            lambda: smooth(lungs, 3, 1.5, spacing),
        ),
        "clip to lungs": (
            lambda: clip_to_lungs(labels, case.lungs, spacing, margin_mm=2.0, z=z),
            lambda: clip_to_lungs(labels, case.lungs, spacing, margin_mm=2.0),
        ),
        "relabel": (lambda: relabel(labels, point), lambda: relabel(labels, point, three_d=True)),
        "split lungs": (
            lambda: split_lungs(lungs, spacing, voxels=voxels, z=z),
            lambda: split_lungs(lungs, spacing, voxels=voxels),
        ),
        "add lesions to lungs": (
            lambda: add(case.lungs, labels, spacing, z=z),
            lambda: add(case.lungs, labels, spacing),
        ),
        "subtract lungs": (lambda: subtract(labels, lungs, z=z), lambda: subtract(labels, lungs)),
        "HU of a part": (
            lambda: read_part(labels, voxels, point, spacing),
            lambda: read_part(labels, voxels, point, spacing, three_d=True),
        ),
    }


def timed(run: Run) -> tuple[float, object]:
    """Return seconds and the result."""
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def peak(run: Run) -> float:
    """Return how many MB a run took at most."""
    tracemalloc.start()
    run()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e6


def changed(result: object) -> str:
    """Return how many voxels a tool changes or measures."""
    if isinstance(result, Reading):
        return f"{result.voxels:,}"
    return f"{len(result):,}" if isinstance(result, Edit) else ""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Time the correction tools.")
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    width = arguments.width
    spacing = (300 / arguments.slices, 358.4 / width, 358.4 / width)
    case = phantom(arguments.seed, (arguments.slices, width, width), spacing)
    z = int(np.argmax(np.count_nonzero(case.lesions == 2, axis=(1, 2))))
    lungs = np.stack([ndimage.grey_closing(slice_ > 0, 11) * np.uint8(3) for slice_ in case.lungs])
    size = case.scan.voxels.nbytes / 1e6
    print(f"{arguments.slices} slices of {width} x {width}; slice {z}; scan {size:.0f} MB")
    print(f"{'':26} {'slice ms':>9} {'voxels':>9} {'volume s':>9} {'voxels':>11} {'peak MB':>8}")
    for name, (on_slice, on_volume) in tools(case, z, lungs).items():
        runs = [timed(on_slice) for _ in range(arguments.repeats + 1)][1:]
        milliseconds = 1e3 * median(seconds for seconds, _ in runs)
        row = f"{name:26} {milliseconds:9.1f} {changed(runs[0][1]):>9}"
        if on_volume is not None:
            seconds, result = timed(on_volume)
            row += f" {seconds:9.2f} {changed(result):>11} {peak(on_volume):8.0f}"
        print(row + ("  over a frame" if milliseconds > FRAME else ""), flush=True)


if __name__ == "__main__":
    main()
