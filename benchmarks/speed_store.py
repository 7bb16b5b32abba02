"""Reading and writing the slices of a case against copying a file of the same size.

    python benchmarks/speed_store.py WORKSPACE CASE [REPEATS]

Prints JSON: MB of voxels per second, medians of interleaved repeats; nothing is forced
to the disk.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zarr

from napari_covseg.cases.store import create_slices, write_slice
from napari_covseg.cases.workspace import Workspace


def seconds(work: Callable[[], object]) -> float:
    """Return how long a call takes."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def main() -> None:
    """Print the figures as JSON."""
    workspace, case_id = sys.argv[1:3]
    repeats = int(sys.argv[3]) if len(sys.argv) > 3 else 5
    case = Workspace.open(workspace).case(case_id)
    voxels = case.read_voxels()
    read, write, copy = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        voxels.tofile(folder / "voxels")
        group = zarr.open_group(folder / "store", mode="w")
        for repeat in range(repeats):
            array = create_slices(group, str(repeat), voxels.shape, voxels.dtype)
            read.append(seconds(lambda: [case.read_slice(z) for z in range(len(voxels))]))
            write.append(
                seconds(lambda a=array: [write_slice(a, z, values) for z, values in enumerate(voxels)])
            )
            copy.append(seconds(lambda r=repeat: shutil.copyfile(folder / "voxels", folder / f"copy{r}")))
    size = voxels.nbytes / 1e6
    figures = {"read": read, "write": write, "copy": copy}
    print(json.dumps({name: size / statistics.median(taken) for name, taken in figures.items()}))


if __name__ == "__main__":
    main()
