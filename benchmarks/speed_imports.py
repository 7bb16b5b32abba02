"""Importing the panels against importing what they stand on, in fresh interpreters.

    python benchmarks/speed_imports.py [REPEATS]

Prints JSON: median seconds of each, interleaved.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

PANELS = "import napari_covseg.panels.dock"
BASIS = "from napari import Viewer; import magicgui, superqt, zarr, SimpleITK"


def seconds(statement: str) -> float:
    """Return how long a statement takes in a new interpreter, without the interpreter's own start."""
    timed = f"import time; begun = time.perf_counter(); {statement}; print(time.perf_counter() - begun)"
    done = subprocess.run([sys.executable, "-c", timed], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Print the figures as JSON."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    pairs = [(seconds(PANELS), seconds(BASIS)) for _ in range(repeats + 1)][1:]  # the first fills the cache
    panels, basis = (statistics.median(column) for column in zip(*pairs, strict=True))
    print(json.dumps({"panels": panels, "basis": basis}))


if __name__ == "__main__":
    main()
