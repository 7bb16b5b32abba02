"""What a stroke costs the viewer's thread, and memory, with a case open and in plain napari.

    python benchmarks/strokes.py [STROKES]

Paints the same strokes (a drag over a slice of 512 x 512, brush of 20 pixels) in two layers
of one viewer, in turn: one that nobody follows, and one of an open case, whose every stroke
becomes a revision on disk. Prints the median of both in ms and their ratio, then by how
much memory has grown after the strokes, each kind in a process of its own, in percent of
the scan. Needs a display, as ``xvfb-run -a -s "-screen 0 1600x1000x24"``.
"""

from __future__ import annotations

import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPE = (60, 512, 512)
STROKES = 1000
DRAG = 12  # mouse moves of a stroke


def main() -> None:
    """Measure both kinds."""
    if len(sys.argv) > 2:
        print(grown(sys.argv[1], int(sys.argv[2])))
        return
    strokes = int(sys.argv[1]) if len(sys.argv) > 1 else STROKES
    plain, followed = costs(min(strokes, 300))
    print(f"stroke in plain napari     {1e3 * plain:6.2f} ms")
    print(f"stroke with a case open    {1e3 * followed:6.2f} ms   {followed / plain:.2f} x")
    bytes_of = {kind: in_own_process(kind, strokes) for kind in ("plain", "case")}
    scan = 2 * SHAPE[0] * SHAPE[1] * SHAPE[2]
    for kind, count in bytes_of.items():
        print(f"{kind:5} memory after {strokes} strokes  {in_words(count, scan)}")
    print(f"more than plain napari's        {in_words(bytes_of['case'] - bytes_of['plain'], scan)}")


def in_words(count: int, scan: int) -> str:
    """Return bytes in MiB and as a part of the scan."""
    return f"{count / 2**20:6.1f} MiB  {100 * count / scan:5.1f} % of the scan"


def costs(strokes: int) -> tuple[float, float]:
    """Return the median seconds of a stroke, plain and followed."""
    viewer, workbench, layers = window()
    seconds: dict[str, list[float]] = {"plain": [], "case": []}
    for number in range(strokes):
        for kind in ("plain", "case") if number % 2 else ("case", "plain"):
            seconds[kind].append(stroke(layers[kind], number))
        if number % 10 == 9:
            settle(0.02)
    workbench.opening.close()
    viewer.close()
    return statistics.median(seconds["plain"]), statistics.median(seconds["case"])


def grown(kind: str, strokes: int) -> int:
    """Return by how many bytes the process has grown after strokes of one kind."""
    import psutil

    viewer, workbench, layers = window()
    for number in range(20):  # what the first strokes make once
        stroke(layers[kind], number)
    settle(1.5)
    gc.collect()
    before = psutil.Process().memory_full_info().uss
    for number in range(strokes):
        stroke(layers[kind], number)
        if number % 10 == 9:
            settle(0.02)
    settle(2.0)
    gc.collect()
    after = psutil.Process().memory_full_info().uss
    workbench.opening.close()
    viewer.close()
    return int(after - before)


def in_own_process(kind: str, strokes: int) -> int:
    """Run `grown` in a process of its own."""
    command = [sys.executable, __file__, kind, str(strokes)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def window() -> tuple[Any, Any, dict[str, Any]]:
    """Return a viewer with an open case, its workbench, and a layer of each kind."""
    os.environ["COVSEG_WORKSPACE"] = str(Path(tempfile.mkdtemp()) / "workspace.zarr")
    import napari
    import numpy as np

    from napari_covseg.panels.layers import geometry, labels_layer
    from napari_covseg.scans.scan import METADATA_KEY, Scan

    voxels = np.random.default_rng(0).integers(-1000, 200, SHAPE, np.int16)
    affine = np.eye(4)
    scan = Scan(voxels, (1.0, 1.0, 1.0), "HU", affine, SHAPE, affine, name="noise")
    viewer = napari.Viewer()
    viewer.window.resize(1280, 800)
    _, dock = viewer.window.add_plugin_dock_widget("napari-covseg", "CovSeg")
    viewer.add_image(voxels, metadata={METADATA_KEY: scan}, **geometry(scan.spacing))
    session = dock.session
    until(lambda: session.case is not None and not session.busy_with)
    plain = labels_layer("lesions", np.zeros(SHAPE, np.uint8), scan.spacing)
    viewer.add_layer(plain)
    viewer.dims.set_current_step(0, SHAPE[0] // 2)
    layers = {"plain": plain, "case": session.layers.labels["lesions"]}
    for layer in layers.values():
        layer.mode, layer.brush_size = "paint", 20
    settle(1.0)
    return viewer, dock.workbench, layers


def stroke(layer: Any, number: int) -> float:
    """Paint one stroke as napari's mouse does; return its seconds on this thread."""
    z, label = SHAPE[0] // 2, 1 + number % 4
    y, x = 60 + 37 * number % 380, 60 + 53 * number % 300
    begin = time.perf_counter()
    with layer.block_history():
        for step in range(DRAG):
            layer._draw(label, (z, y, x + 8 * step), (z, y, x + 8 * (step + 1)))
    return time.perf_counter() - begin


def settle(seconds: float) -> None:
    """Let the window live for a while."""
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end)


def until(condition: Any) -> None:
    """Process events until something is true."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + 120
    while not condition():
        if time.monotonic() > end:
            raise SystemExit("nothing happens")
        QApplication.processEvents()
        time.sleep(0.002)


if __name__ == "__main__":
    main()
