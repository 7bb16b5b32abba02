"""What keeping every stroke costs: the painter's thread, the disk, reading it back.

    python benchmarks/strokes_store.py [--strokes 1000] [--radius 15] [--slices 100] [--json]

Paints discs on random slices of a scan of 512 x 512, faster than anybody could, and prints what
each step took. Only compacting forces anything to the disk.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
import tracemalloc
from pathlib import Path

import numpy as np

from napari_covseg.cases.open_case import OpenCase
from napari_covseg.cases.workspace import Workspace
from napari_covseg.scans.scan import Scan

SIDE = 512


def empty_case(folder: Path, slices: int) -> tuple[Workspace, str]:
    """Return a workspace with one case of zeros."""
    shape = (slices, SIDE, SIDE)
    scan = Scan(np.zeros(shape, np.int16), (1.0, 0.7, 0.7), "HU", np.eye(4), shape, np.eye(4), name="empty")
    workspace = Workspace.open(folder)
    return workspace, workspace.add_case(scan)


def stored(folder: Path) -> tuple[float, int]:
    """Return MB and number of the files below a folder, as blocks on the disk."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return sum(getattr(path.stat(), "st_blocks", 0) * 512 for path in files) / 1e6, len(files)


def paint(opened: OpenCase, strokes: int, radius: int) -> tuple[list[float], list[float]]:
    """Paint; return what `record` took each time, and seconds until some strokes were on disk."""
    rng = np.random.default_rng(0)
    y, x = (axis - radius for axis in np.indices((2 * radius + 1,) * 2))
    inside = y**2 + x**2 <= radius**2
    taken, waited = [], []
    for stroke in range(strokes):
        z, cy, cx = rng.integers(0, opened.case.shape[0]), *rng.integers(radius, SIDE - radius, 2)
        index = np.full(inside.sum(), z), y[inside] + cy, x[inside] + cx
        before = opened.live["lesions"][index]
        opened.live["lesions"][index] = stroke % 4 + 1
        begun = time.perf_counter()
        opened.record("lesions", index, before)
        taken.append(time.perf_counter() - begun)
        if stroke % 50 == 0:
            while opened.pending:
                time.sleep(0.002)
            waited.append(time.perf_counter() - begun)
        else:
            time.sleep(0.005)
    return taken, waited


def seconds_to_read(workspace: Workspace, case_id: str) -> tuple[float, float]:
    """Return how long listing all revisions takes, and reading all of them, in a case opened anew."""
    seen = OpenCase(workspace, case_id, read_only=True)
    begun = time.perf_counter()
    seen.history()
    listed = time.perf_counter()
    seen.state_at(0)
    return listed - begun, time.perf_counter() - listed


def measure(folder: Path, strokes: int, radius: int, slices: int) -> dict[str, float]:
    """Return the figures."""
    workspace, case_id = empty_case(folder, slices)
    history = Path(workspace.case(case_id).path, "history")
    opened = OpenCase(workspace, case_id)
    opened.flush()
    empty, _ = stored(history)
    taken, waited = paint(opened, strokes, radius)
    opened.flush()
    figures = {
        "strokes": strokes,
        "ms per stroke, median": 1e3 * statistics.median(taken),
        "ms per stroke, 99 of 100": 1e3 * sorted(taken)[len(taken) * 99 // 100],
        "s until on disk, median": statistics.median(waited),
        "s until on disk, longest": max(waited),
    }
    size, files = stored(history)
    figures |= {"open: MB": size - empty, "open: files": files}
    figures["open: s to list"], figures["open: s to walk back"] = seconds_to_read(workspace, case_id)
    begun = time.perf_counter()
    opened.close()
    figures["s to compact and close"] = time.perf_counter() - begun
    size, files = stored(history)
    figures |= {"compacted: MB": size - empty, "compacted: files": files}
    figures["compacted: s to list"], figures["compacted: s to walk back"] = seconds_to_read(
        workspace, case_id
    )
    return figures


def kept_in_memory(folder: Path, strokes: int, radius: int, slices: int) -> float:
    """Return kB that the strokes leave in memory, apart from the arrays that are painted in."""
    workspace, case_id = empty_case(folder, slices)
    with OpenCase(workspace, case_id) as opened:
        opened.history()
        opened.flush()
        tracemalloc.start()
        paint(opened, strokes, radius)
        opened.flush()
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    return kept / 1e3


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--strokes", type=int, default=1000)
    parser.add_argument("--radius", type=int, default=15)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        figures = measure(Path(name, "a"), given.strokes, given.radius, given.slices)
        kept = kept_in_memory(Path(name, "b"), given.strokes, given.radius, given.slices)
        figures["kB left in memory"] = kept
    if given.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{what:<26} {value:10.3f}" for what, value in figures.items()))


if __name__ == "__main__":
    main()
